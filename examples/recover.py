#!/usr/bin/env python3
"""Decrypt an agcm stream (version 1) without agcm, for the day when its binary is gone. First: pip install cryptography

    recover.py -k KEYFILE [-k KEYFILE ...] [-c CONTEXT] [INPUT] [-o OUTPUT]      (a snapshot: -k DIR/ID.key -c ID)

Written from the documentation at the top of src/format.rs alone, which defines every byte and every fault named here.
A KEYFILE holds 64 hex digits (and at most one newline) or exactly 32 raw bytes; of several, the one that fits is used.
OUTPUT must not exist, and appears only when the whole stream was checked. Standard output gets each frame once that frame
was checked, so it is whole only if the exit status is 0. Other statuses: 1 I/O, key file, interrupt; 2 usage; 3 wrong key
or context; 4 bad stream. Frames are counted from 0, after the key frame. Where there are no hard links, use > for -o."""
import argparse, contextlib, hmac, os, re, signal, struct, sys, tempfile  # noqa: E401
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY, DATA, FINAL, MAX_CHUNK, MAX_TOTAL, MAX_FRAMES, MAX_CONTEXT = 1, 2, 3, 10 << 20, 1 << 52, 1 << 40, 65535
class Fault(Exception): """Name, what happened where, exit status."""
def check(holds, name, text, status=4):
    if not holds:
        raise Fault(name, text, status)

class Source:
    def __init__(self, fd):
        self.fd, self.at = fd, 0
    def read(self, size, where):
        data = bytearray()
        while len(data) < size:
            # Nobody has vouched for `size` yet, so memory follows what has arrived, not what was announced.
            piece = os.read(self.fd, min(size - len(data), len(data) + 4096))
            check(piece, "Truncated", f"the input ends in {where}, byte {self.at}")
            data += piece
            self.at += len(piece)
        return bytes(data)  # cryptography 38, of Debian 12, takes nothing else

def read_prelude(source, keys, context):
    for byte in b"AGCM":  # one at a time, because two wrong bytes are BadMagic, not Truncated
        check(source.read(1, "the header")[0] == byte, "BadMagic", f"not an agcm stream, header, byte {source.at - 1}")
    header = b"AGCM" + source.read(20, "the header")
    version, nonce, chunk = struct.unpack("<4xI12sI", header)
    check(version == 1, "UnsupportedVersion", f"version {version}, header, byte 4")
    check(1 <= chunk <= MAX_CHUNK, "InvalidChunkSize", f"chunk size {chunk}, header, byte 20")
    word = source.read(4, "the key frame")
    check(word[3] != 0, "LegacyStream", "a stream of the Go library Harpocrates, key frame, byte 24")
    check(word == struct.pack("<I", KEY << 24 | 52), "InvalidFrame", f"word {word.hex()}, key frame, byte 24")
    body = source.read(52, "the key frame")
    info = b"AGCM-v1\0" + header + body[:20] + context
    for okm in (HKDFExpand(hashes.SHA256(), 64, info).derive(key) for key in keys):
        if hmac.compare_digest(okm[32:], body[20:]):
            return AESGCM(okm[:32]), nonce, chunk
    raise Fault("KeyMismatch", "wrong key or context, or header or salt was changed, key frame, byte 24", 3)

def open_frame(cipher, base, kind, position, body, where):
    mask = struct.pack("<B3xQ", kind, position)
    try:
        return cipher.decrypt(bytes(a ^ b for a, b in zip(base, mask)), body, None)
    except InvalidTag:
        raise Fault("Corrupt", f"the tag does not match, {where}", 4) from None

def decrypt(source, keys, context):
    """Yields each frame's plaintext after its tag was checked; raises Fault unless the input is one whole stream."""
    cipher, base, chunk = read_prelude(source, keys, context)
    total, frames, uniform, full = 0, 0, True, True
    while True:
        where, word = f"frame {frames}, byte {source.at}", source.read(4, f"frame {frames}")
        kind, size = word[3], int.from_bytes(word[:3], "little") - 16
        fits = 1 <= size <= chunk if kind == DATA else (kind, size) == (FINAL, 17)
        check(fits, "InvalidFrame", f"kind {kind}, length {size + 16}, {where}")
        if kind == FINAL:
            break
        check(total + size <= MAX_TOTAL and frames < MAX_FRAMES, "StreamTooLong", f"past the limits, {where}")
        yield open_frame(cipher, base, DATA, total, source.read(size + 16, f"frame {frames}"), where)
        # `full` lags one frame behind, because a short frame breaks the layout only once another frame follows it.
        total, frames, uniform, full = total + size, frames + 1, uniform and full, size == chunk
    stated = struct.unpack("<QQB", open_frame(cipher, base, FINAL, 0, source.read(33, f"frame {frames}"), where))
    check(stated == (total, frames, uniform), "Corrupt", f"total, frames or layout is not what was read, {where}")
    check(not os.read(source.fd, 1), "TrailingData", f"the input goes on after frame {frames}, byte {source.at}")

def load_key(path):
    with open(path, "rb") as file:
        data = file.read(67)  # more than a key file has, and no more of a wrong file than that
    digits = re.fullmatch(rb"([0-9A-Fa-f]{64})(\r?\n)?", data)
    raw = len(data) == 32 and re.search(rb"[^0-9A-Fa-f]", data)  # 32 digits would be half a key
    check(digits or raw, "BadKeyFile", f"{path!r} holds neither 64 hex digits nor 32 bytes", 1)
    return bytes.fromhex(digits[1].decode()) if digits else data

@contextlib.contextmanager
def new_file(path):
    """A file that gets its name only if the block ends without an exception, and only if nothing has that name."""
    check(path and not os.path.lexists(path), "OutputExists", f"{path!r} exists (or is no name) and is not replaced", 1)
    with tempfile.NamedTemporaryFile(prefix=".recover-", dir=os.path.dirname(path) or ".") as file:
        yield file
        os.fsync(file.fileno())
        os.link(file.name, path)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", metavar="KEYFILE", action="append", required=True)
    parser.add_argument("-c", metavar="CONTEXT", type=os.fsencode, default=b"")
    parser.add_argument("-o", metavar="OUTPUT", default="-")
    parser.add_argument("input", metavar="INPUT", nargs="?", default="-")
    args = parser.parse_args()
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it; else as Ctrl-C: leaves no temporary file behind
            signal.signal(number, signal.default_int_handler)
    try:
        check(len(args.c) <= MAX_CONTEXT, "ContextTooLong", f"{len(args.c)} bytes, over {MAX_CONTEXT}", 2)
        keys = [load_key(path) for path in args.k]
        fd = 0 if args.input == "-" else os.open(args.input, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        with open(1, "wb", closefd=False) if args.o == "-" else new_file(args.o) as output:
            for plain in decrypt(Source(fd), keys, args.c):
                output.write(plain)
                output.flush()
    except (Fault, OSError, KeyboardInterrupt) as error:
        name, text, status = error.args if isinstance(error, Fault) else (type(error).__name__, str(error) or "stopped", 1)
        print(f"recover.py: {name}: {text}", file=sys.stderr)
        return status
if __name__ == "__main__":
    sys.exit(main())
