"""The messages of gRPC's interfaces are those of the .proto files, and these are what is published."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor

import stubs
from lnh_kms import api_pb2


def test_the_stubs_are_made_of_the_files_as_they_are() -> None:
    assert stubs.stale() == [], "run `make stubs`"


# k8s.io/kms/apis/v2, api.proto, as of Kubernetes 1.29 to 1.35: each message's fields in the order of their numbers from 1 on.
PUBLISHED = {
    "StatusRequest": (),
    "StatusResponse": ("string version", "string healthz", "string key_id"),
    "DecryptRequest": ("bytes ciphertext", "string uid", "string key_id", "map annotations"),
    "DecryptResponse": ("bytes plaintext",),
    "EncryptRequest": ("bytes plaintext", "string uid"),
    "EncryptResponse": ("bytes ciphertext", "string key_id", "map annotations"),
}
TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_MESSAGE: "map",
}


def test_the_interface_of_kms_plugins_is_the_published_one() -> None:
    file = api_pb2.DESCRIPTOR
    found = {
        name: tuple(f"{TYPES[field.type]} {field.name}" for field in message.fields)
        for name, message in file.message_types_by_name.items()
    }
    assert found == PUBLISHED
    for message in file.message_types_by_name.values():
        assert [field.number for field in message.fields] == list(range(1, len(message.fields) + 1))
        for entry in message.nested_types:
            assert [(field.number, TYPES[field.type]) for field in entry.fields] == [(1, "string"), (2, "bytes")]
    service = file.services_by_name["KeyManagementService"]
    assert service.full_name == "v2.KeyManagementService"
    calls = {each.name: (each.input_type.name, each.output_type.name) for each in service.methods}
    assert calls == {name: (f"{name}Request", f"{name}Response") for name in ("Status", "Decrypt", "Encrypt")}
