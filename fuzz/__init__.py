"""Coverage-guided fuzzing: any bytes parse or raise ``ProtocolError``; nothing else, no unbounded time or memory."""
