# Two stages: wheels are gathered in the first, nothing is compiled in the second.
FROM python:3.13-slim AS wheels
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protocols protocols
COPY receiver receiver
RUN pip wheel --no-cache-dir --wheel-dir /wheels --constraint constraints.txt '.[all]'

FROM python:3.13-slim
LABEL org.opencontainers.image.title="dc09-receiver" \
      org.opencontainers.image.description="Alarm receiver for ANSI/SIA DC-09" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile --no-index --find-links=/wheels 'dc09-receiver[all]' \
    && useradd --system --uid 10001 --home-dir /var/lib/dc09-receiver --create-home dc09
USER 10001
WORKDIR /var/lib/dc09-receiver
# Journal, state, and receiver.toml with accounts.csv if there are any: one volume.
VOLUME /var/lib/dc09-receiver
ENV PYTHONUNBUFFERED=1 DC09_HTTP_HOST=127.0.0.1
EXPOSE 12128/tcp 12128/udp
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["dc09-receiver", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["dc09-receiver"]
CMD ["serve"]
