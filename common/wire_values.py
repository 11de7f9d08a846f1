"""One bridge between messages and values that have the same field names.

A value is a frozen dataclass or pydantic model; its message has the same fields. Enumerations are
`StrEnum`s whose members are the message's names without their prefix. pydantic checks what comes
in: nothing that does not fit its type gets past here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, SerializeToJsonError
from google.protobuf.message import DecodeError, Message
from pydantic import TypeAdapter, ValidationError

from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

MessageT = TypeVar("MessageT", bound=Message)
ValueT = TypeVar("ValueT")


class InvalidMessage(RequestError):
    """A field of a message, or of a file that becomes one, does not hold what it must."""

    def __init__(self, what: str, *, field: str, problem: str) -> None:
        super().__init__(f"{what}: {field}: {problem}")
        self.field = field


class Bridge(Generic[ValueT, MessageT]):
    """Turns a value into its message and back, checking everything on the way back."""

    def __init__(self, value: type[ValueT], message: type[MessageT]) -> None:
        self._adapter: TypeAdapter[ValueT] = TypeAdapter(value)
        self._message = message
        self._descriptor = cast("Descriptor", message.DESCRIPTOR)
        self._name = self._descriptor.name

    def to_message(self, value: ValueT) -> MessageT:
        """Return the message that holds `value`."""
        fields = self._adapter.dump_python(value, mode="json", exclude_none=True)
        renamed = _renamed(fields, self._descriptor, _enum_to_proto)
        return ParseDict(renamed, self._message())

    def from_message(self, message: MessageT) -> ValueT:
        """Return the value in `message`.

        Raises:
            InvalidMessage: a field does not hold what it must; it is named.
        """
        try:
            fields = MessageToDict(
                message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        except SerializeToJsonError as error:  # such as a time that is none
            raise InvalidMessage(self._descriptor.name, field="", problem=str(error)) from error
        return self.check(_renamed(fields, self._descriptor, _enum_from_proto))

    def from_bytes(self, data: bytes) -> ValueT:
        """Return the value in a serialised message; raise InvalidMessage as `from_message`."""
        message = self._message()
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise InvalidMessage(self._name, field="bytes", problem="not this message") from error
        return self.from_message(message)

    def check(self, fields: Any) -> ValueT:
        """Return the value made of `fields`; raise InvalidMessage as `from_message`."""
        try:
            return self._adapter.validate_python(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "message"
            problem = f"{first['msg']} (got {str(first['input'])[:80]!r})"
            raise InvalidMessage(self._name, field=where, problem=problem) from error


def _renamed(
    fields: dict[str, Any], descriptor: Descriptor, rename: Callable[[str, str], str]
) -> dict[str, Any]:
    """Return `fields` with every enumeration's name passed through `rename`."""
    return {
        name: _renamed_field(value, descriptor.fields_by_name.get(name), rename)
        for name, value in fields.items()
    }


def _renamed_field(
    value: Any, field: FieldDescriptor | None, rename: Callable[[str, str], str]
) -> Any:
    if field is None:
        return value
    if isinstance(value, list):
        return [_renamed_field(each, field, rename) for each in value]
    enum, nested = field.enum_type, field.message_type
    if enum is not None and isinstance(value, str):
        return rename(value, _prefix(enum.name))
    if nested is not None and isinstance(value, dict):
        if nested.GetOptions().map_entry:
            of_values = nested.fields_by_name["value"]
            return {key: _renamed_field(each, of_values, rename) for key, each in value.items()}
        return _renamed(value, nested, rename)
    return value


def _prefix(enum: str) -> str:
    """`WaitReason` -> `WAIT_REASON_`, as the style of proto files has it."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum)
    return words.lstrip("_").upper() + "_"


def _enum_to_proto(name: str, prefix: str) -> str:
    return prefix + name.upper()


def _enum_from_proto(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
