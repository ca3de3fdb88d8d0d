"""ELF shared libraries, as far as images without CUDA need them: what one asks of others, and stubs of them.

The format is that of the System V ABI (https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html) and,
for the versions of symbols, of the Linux Standard Base
(https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic). 64 bits, little-endian. Only the standard
library: the image's builder has no compiler and no binutils.
"""

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

DYNAMIC, DYNSYM, VERNEED, VERSYM = 6, 11, 0x6FFFFFFE, 0x6FFFFFFF
NEEDED, SONAME = 1, 14

RETURN_ONE = {
    62: bytes.fromhex("b801000000c3"),  # x86-64: mov eax, 1; ret
    183: bytes.fromhex("20008052c0035fd6"),  # AArch64: mov w0, #1; ret
}
"""By the header's ``e_machine``: a function without arguments that returns 1."""


@dataclass
class Demands:
    """What a library asks of the ones that it names.

    Attributes:
        machine: the header's ``e_machine``.
        libraries: names of the libraries that the loader must find (``DT_NEEDED``).
        symbols: by library, by version, the names of the undefined symbols that it must define.
        versions: by library, the versions that it must define, whether or not a symbol is asked of them.
        unversioned: names of the undefined symbols that any library may define.
        defined: names of the symbols that this library defines itself.
    """

    machine: int
    libraries: list[str] = field(default_factory=list)
    symbols: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=dict)
    unversioned: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)


def demands_of(path: Path) -> Demands:
    """Read a library's dynamic section, its symbols and their versions.

    Args:
        path: of the library.

    Raises:
        ValueError: the file is not an ELF file of 64 bits, little-endian.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is not an ELF file of 64 bits, little-endian")
        found = Demands(machine=struct.unpack_from("<H", data, 18)[0])
        (table,), (size, count) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HH", data, 58)
        # Of a section: kind, offset, size, the section of its strings, number of entries (for versions).
        headers = [struct.unpack_from("<IIQQQQII", data, table + index * size) for index in range(count)]
        sections = {header[1]: (*header[4:7], header[7]) for header in headers}

        def string(section: int, offset: int) -> str:
            start = headers[section][4] + offset
            return data[start : data.find(b"\0", start)].decode()

        start, length, strings, _ = sections[DYNAMIC]
        for at in range(start, start + length, 16):
            tag, value = struct.unpack_from("<qQ", data, at)
            if tag == NEEDED:
                found.libraries.append(string(strings, value))
        versions: dict[int, tuple[str, str]] = {}
        if VERNEED in sections:
            at, _, strings, entries = sections[VERNEED]
            for _ in range(entries):
                _, parts, name, first, following = struct.unpack_from("<HHIII", data, at)
                library, part = string(strings, name), at + first
                for _ in range(parts):
                    _, _, index, name, next_part = struct.unpack_from("<IHHII", data, part)
                    version = string(strings, name)
                    versions[index & 0x7FFF] = library, version
                    found.versions.setdefault(library, set()).add(version)
                    part += next_part
                at += following
        start, length, strings, _ = sections[DYNSYM]
        of_symbols = sections[VERSYM][0] if VERSYM in sections else None
        for number in range(1, length // 24):
            name, _, _, section = struct.unpack_from("<IBBH", data, start + 24 * number)
            index = 0 if of_symbols is None else struct.unpack_from("<H", data, of_symbols + 2 * number)[0]
            if section:
                found.defined.add(string(strings, name))
            elif index in versions:
                library, version = versions[index]
                found.symbols.setdefault(library, {}).setdefault(version, set()).add(string(strings, name))
            else:
                found.unversioned.add(string(strings, name))
        return found


def write_stub_library(path: Path, name: str, symbols: dict[str, set[str]], machine: int) -> None:
    """Write a shared library whose functions all return 1.

    Args:
        path: of the file to write.
        name: of the library, by which others ask for it (``DT_SONAME``).
        symbols: by version, the names of the functions; those without a version by ``""``.
        machine: as :attr:`Demands.machine`.

    Raises:
        KeyError: a machine whose instructions are not known here.
    """
    code = RETURN_ONE[machine]
    strings = bytearray(b"\0")
    places: dict[str, int] = {"": 0}

    def place(text: str) -> int:
        if text not in places:
            places[text] = len(strings)
            strings.extend(text.encode() + b"\0")
        return places[text]

    # The first version is the library itself; index 2 onwards are the ones that symbols ask for.
    named = [
        (name, 1, 1),
        *((text, 0, index) for index, text in enumerate(sorted({*symbols} - {""}), start=2)),
    ]
    functions = [(function, 1) for function in sorted(symbols.get("", ()))]
    functions += [
        (function, index) for version, _, index in named[1:] for function in sorted(symbols[version])
    ]
    definitions = b""
    for order, (version, flags, index) in enumerate(named):
        following = 0 if order == len(named) - 1 else 28
        definitions += struct.pack("<HHHHIII", 1, flags, index, 1, sysv_hash(version), 20, following)
        definitions += struct.pack("<II", place(version), 0)
    for function, _ in functions:
        place(function)
    number = len(functions) + 1
    header_size = 64 + 4 * 56
    symbols_at = header_size
    hash_at = symbols_at + 24 * number
    versions_at = hash_at + 4 * (3 + number)
    definitions_at = -(-(versions_at + 2 * number) // 8) * 8
    strings_at = definitions_at + len(definitions)
    code_at = -(-(strings_at + len(strings)) // 16) * 16
    code_end = code_at + len(code)
    # The loader writes into the dynamic section, so that it lies on a page of its own, which is writable.
    dynamic_at = -(-code_end // 0x10000) * 0x10000

    table = bytes(24) + b"".join(
        struct.pack("<IBBHQQ", places[function], 0x12, 0, 1, code_at, len(code)) for function, _ in functions
    )
    # One bucket: its chain goes through every symbol. These libraries have a few hundred.
    chain = [0, *(index + 1 if index + 1 < number else 0 for index in range(1, number))]
    hashes = struct.pack(f"<3I{number}I", 1, number, 1 if number > 1 else 0, *chain)
    of_symbols = struct.pack(f"<{number}H", 0, *(index for _, index in functions))
    entries = [
        (SONAME, places[name]),
        (4, hash_at),
        (5, strings_at),
        (6, symbols_at),
        (10, len(strings)),
        (11, 24),
        (0x6FFFFFF0, versions_at),
        (0x6FFFFFFC, definitions_at),
        (0x6FFFFFFD, len(named)),
        (0, 0),
    ]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    headers = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, align)
        for kind, flags, at, size, align in (
            (1, 5, 0, code_end, 0x10000),
            (1, 6, dynamic_at, len(dynamic), 0x10000),
            (2, 6, dynamic_at, len(dynamic), 8),
            (0x6474E551, 6, 0, 0, 16),  # a stack that is not executable
        )
    )
    data = bytearray(dynamic_at + len(dynamic))
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, machine, 1, 0, 64, 0, 0, 64, 56, 4, 64, 0, 0)
    for at, content in (
        (0, head),
        (64, headers),
        (symbols_at, table),
        (hash_at, hashes),
        (versions_at, of_symbols),
        (definitions_at, definitions),
        (strings_at, bytes(strings)),
        (code_at, code),
        (dynamic_at, dynamic),
    ):
        data[at : at + len(content)] = content
    path.write_bytes(data)
    path.chmod(0o755)


def sysv_hash(name: str) -> int:
    """The ABI's hash of a name."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value
