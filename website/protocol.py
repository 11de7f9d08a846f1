"""The reference of the protocol, from the comments of `protos/`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from common.markdown import row, table
from orchestrator.auth import PERMISSIONS
from website.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOS = "protos/federation/v1"
# the numbers of descriptor.proto, by which a comment says what it is about
_MESSAGES, _ENUMS, _SERVICES, _MEMBERS, _NESTED, _NESTED_ENUMS = 4, 5, 6, 2, 3, 4
_TYPES = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}
_REPEATED = FieldDescriptorProto.LABEL_REPEATED


class Comments:
    """What the comments of one file say, by the path of what they stand at."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._said: Mapping[tuple[int, ...], str] = {
            tuple(place.path): (place.leading_comments or place.trailing_comments)
            for place in file.source_code_info.location
        }

    def of(self, *path: int) -> str:
        """Return a comment as a sentence; nothing where there is none."""
        said = self._said.get(path, "")
        return _sentence(said) if said.strip() else ""


def _sentence(text: str) -> str:
    """Return a comment or docstring of the code as a sentence of a page."""
    words = " ".join(text.split())
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", ":", "?")) else ".")


def files() -> list[FileDescriptorProto]:
    """Return the descriptors of the protocol's files, with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all"
        sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PROTOS).glob("*.proto"))
        google = Path(grpc_tools.__file__).parent / "_proto"
        options = [
            *(f"--proto_path={ROOT}", f"--proto_path={google}"),
            *("--include_source_info", f"--descriptor_set_out={out}"),
        ]
        if protoc.main(["protoc", *options, *sources]):
            raise RuntimeError(f"protoc cannot read {PROTOS}: `make protos` says why")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def pages() -> dict[str, tuple[str, str]]:
    """Return the page: title and text by file name."""
    words = (
        "# Protocol\n\nWhat goes over the wire, package `federation.v1`. Calls are gRPC over mutual"
        " TLS;\nwho is calling is read from the certificate, or from a token where people may sign "
        "in\nwith one. `v1` only grows.\n"
    )
    return {"protocol.md": ("Protocol", words + "".join(map(_file, files())))}


def _file(file: FileDescriptorProto) -> str:
    said = Comments(file)
    parts = [f"\n## {Path(file.name).name}\n"]
    parts += [_service(each, said, (_SERVICES, n)) for n, each in enumerate(file.service)]
    parts += [_message(each, said, (_MESSAGES, n)) for n, each in enumerate(file.message_type)]
    parts += [_enum(each, said, (_ENUMS, n)) for n, each in enumerate(file.enum_type)]
    return "".join(parts)


def _service(service: ServiceDescriptorProto, said: Comments, path: tuple[int, ...]) -> str:
    rows = []
    for number, method in enumerate(service.method):
        asked = f"{'stream ' * method.client_streaming}{_local(method.input_type)}"
        answer = f"{'stream ' * method.server_streaming}{_local(method.output_type)}"
        roles = PERMISSIONS[f"/federation.v1.{service.name}/{method.name}"]
        rows.append(
            row(
                f"`{method.name}`",
                asked,
                answer,
                ", ".join(sorted(roles)),
                said.of(*path, _MEMBERS, number),
            )
        )
    head = ("call", "request", "answer", "roles", "meaning")
    return f"\n### {service.name}\n\n{said.of(*path)}\n\n{table(head, rows)}"


def _message(
    message: DescriptorProto, said: Comments, path: tuple[int, ...], within: str = ""
) -> str:
    name = f"{within}{message.name}"
    rows = [
        row(
            f"`{each.name}`",
            str(each.number),
            _type(each, message),
            said.of(*path, _MEMBERS, number),
        )
        for number, each in enumerate(message.field)
    ]
    parts = [
        f"\n### {name}\n\n{said.of(*path)}\n\n",
        table(("field", "number", "type", "meaning"), rows),
    ]
    nested = [
        _message(each, said, (*path, _NESTED, number), f"{name}.")
        for number, each in enumerate(message.nested_type)
        if not each.options.map_entry
    ]
    enums = [
        _enum(each, said, (*path, _NESTED_ENUMS, number), f"{name}.")
        for number, each in enumerate(message.enum_type)
    ]
    return "".join([*parts, *nested, *enums])


def _enum(
    enum: EnumDescriptorProto, said: Comments, path: tuple[int, ...], within: str = ""
) -> str:
    rows = [
        row(f"`{each.name}`", str(each.number), said.of(*path, _MEMBERS, number))
        for number, each in enumerate(enum.value)
    ]
    values = table(("value", "number", "meaning"), rows)
    return f"\n### {within}{enum.name}\n\n{said.of(*path)}\n\n{values}"


def _local(name: str) -> str:
    short = name.removeprefix(".federation.v1.")
    return f"[{short}](#{short.lower().replace('.', '')})" if short != name else name.lstrip(".")


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            key, value = (_type(each, nested) for each in nested.field)
            return f"map of {key} to {value}"
    kind = _local(field.type_name) if field.type_name else _TYPES[field.type]
    many = "repeated " if field.label == _REPEATED else ""
    return f"{many}{'optional ' * field.proto3_optional}{kind}"
