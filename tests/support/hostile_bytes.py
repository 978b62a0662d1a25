#!/usr/bin/python3
"""The bytes of tests/data/hostile, and who sends them: to a TCP port, or over ZeroMQ with a key that is let in or none.

    hostile_bytes.py tcp://HOST:PORT [KEY.toml]

sends all messages from a raw ZeroMQ peer, and prints how many were taken; it needs Debian's python3-zmq."""

import os
import socket
import sys
import tomllib

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/hostile")
SENT_MS = 60_000  # by then a peer that is let in has sent all
DENIED_MS = 5_000  # for which one that is not let in tries, in vain


def parse(line):
    """(name, parts)"""
    name, *words = line.split()
    parts = []
    for word in words:
        word, _, times = word.partition("*")
        word, _, repeat = word.partition("x")
        part = b"" if word == "-" else bytes.fromhex(word) * int(repeat or 1)
        parts += [part] * int(times or 1)
    return name, parts


def corpus(file):
    with open(os.path.join(DATA, file), encoding="utf-8") as f:
        return [parse(line) for line in f.read().splitlines() if line and not line.startswith("#")]


def send_streams(address, port):
    """Each to a connection of its own, which is then left alone for a moment."""
    for _, parts in corpus("streams.txt"):
        with socket.create_connection((address, port), timeout=5) as s:
            s.settimeout(0.1)
            try:
                s.sendall(b"".join(parts))
                while s.recv(4096):
                    pass
            except OSError:  # hung up, or says nothing
                pass


def send_messages(endpoint, key_file):
    import zmq  # the interpreter that runs the tests may lack it

    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    peer.sndtimeo = peer.linger = SENT_MS if key_file else DENIED_MS
    if key_file:
        with open(key_file, "rb") as f:
            key = tomllib.load(f)
        peer.curve_serverkey = key["server_key"].encode()
        peer.curve_publickey, peer.curve_secretkey = key["public_key"].encode(), key["secret_key"].encode()
    peer.connect(endpoint)
    messages = corpus("messages.txt")
    for _, parts in messages:
        peer.send_multipart(parts)
    peer.close()
    context.term()  # waits until all is sent
    return len(messages)


if __name__ == "__main__":
    print(send_messages(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
