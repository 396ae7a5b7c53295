"""A syslog server for the tests: ``python syslog_server.py PORT FILE`` writes each octet-counted message as a line."""

import socket
import sys


def main(port: int, file: str) -> None:
    with socket.create_server(("127.0.0.1", port)) as server, open(file, "ab", buffering=0) as out:
        while True:
            link, _ = server.accept()
            with link, link.makefile("rb") as stream:
                while head := stream.read(1):
                    while not head.endswith(b" "):
                        head += stream.read(1)
                    message = stream.read(int(head))
                    if len(message) == int(head):
                        out.write(message + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
