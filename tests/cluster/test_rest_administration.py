"""Administration, versions of objects, and bytes of any length over REST, through a real member."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

import lnh
from lnh import admin as administration
from lnh_common import limits
from rest_service import Rest, Running, base64_of, basic
from sites import ADMIN, KRSO, PO, Site
from waits import wait_until

OCTETS = "application/octet-stream"


def test_a_user_comes_with_a_role_changes_its_password_and_goes(admin: Rest, service: Running) -> None:
    admin.done("POST", "/v1/roles", {"name": "rest-looker", "permissions": ["view"]})
    assert admin.done("GET", "/v1/roles/rest-looker")["permissions"] == ["view"]
    user = {"name": "rest-user", "role": "rest-looker", "password": "a first password"}
    admin.done("POST", "/v1/users", user)
    admin.ask("POST", "/v1/users", user).refused(409, "NameTaken")
    assert admin.done("GET", "/v1/users/rest-user") == {"name": "rest-user", "role": "rest-looker", "locked": False}
    change = {"as": "user", "user": "rest-user", "password": "a first password", "new": "another password"}
    service.rest.done("POST", "/v1/passwords", change)
    ours = service.rest.logged_in(**{"as": "user", "user": "rest-user", "password": "another password"})
    assert ours.done("GET", "/v1/cluster")["label"] == "prod"
    ours.ask("GET", "/v1/users").refused(403, "PermissionDenied")
    admin.done("POST", "/v1/users/rest-user/reset", {"password": "a third password"})
    ours.ask("GET", "/v1/cluster").refused(401, "CredentialChanged")
    reset = {"as": "user", "user": "rest-user", "password": "a third password"}
    service.rest.ask("POST", "/v1/sessions", reset).refused(403, "PasswordMustChange")
    admin.ask("DELETE", "/v1/roles/rest-looker").refused(409, "NotPossible")
    admin.done("DELETE", "/v1/users/rest-user")
    admin.done("DELETE", "/v1/roles/rest-looker")
    admin.ask("GET", "/v1/users/rest-user").refused(404, "NameUnknown")


def test_wrong_passwords_are_refused_here_before_the_hsm_counts_enough_of_them(
    admin: Rest, service: Running, site: Site
) -> None:
    admin.done("POST", "/v1/users", {"name": "rest-guessed", "role": "monitor", "password": "the right password"})
    login = {"as": "user", "user": "rest-guessed", "password": "wrong"}
    for _ in range(limits.REST_FAILURES_OF_ONE):
        service.rest.ask("POST", "/v1/sessions", login).refused(401, "PasswordIncorrect")
    for password in ("wrong", "the right password"):
        told = service.rest.ask("POST", "/v1/sessions", {**login, "password": password})
        told.refused(429, "PasswordLocked")
        assert int(told.headers["retry-after"]) > limits.LOCK_SECONDS / 2
    basically = Rest(service.rest.port, service.rest.context, basic("rest-guessed", "the right password"))
    basically.ask("GET", "/metrics").refused(429, "PasswordLocked")
    # The HSM, to which service and SDK are one client here, has not locked it.
    with (
        site.connect() as cluster,
        administration.login(cluster.connection, "rest-guessed", "the right password") as session,
    ):
        assert session.show().label == "prod"
    admin.done("DELETE", "/v1/users/rest-guessed")


def test_a_client_is_assigned_a_keyring_and_revoked(admin: Rest, site: Site, tmp_path: Path) -> None:
    lnh.register(lnh.Configuration(tmp_path), site.address, "rest-2", "admin", lambda: ADMIN, wanted=site.fingerprint)
    (made,) = admin.done("POST", "/v1/keyrings", {"label": "rest assigned"})["keyrings"]
    admin.done("PUT", "/v1/clients/rest-2/keyrings/rest%20assigned")
    assert admin.done("GET", "/v1/clients/rest-2")["keyrings"] == [made["id"]]
    assert admin.done("GET", "/v1/keyrings/rest%20assigned")["clients"] == ["rest-2"]
    admin.done("DELETE", "/v1/clients/rest-2/keyrings/rest%20assigned")
    admin.done("POST", "/v1/clients/rest-2/revoke")
    assert admin.done("GET", "/v1/clients/rest-2")["revoked"]
    admin.ask("POST", "/v1/clients/nobody/revoke").refused(404, "ClientUnknown")
    admin.done("DELETE", "/v1/keyrings/rest%20assigned")


def test_a_keyring_is_handed_to_its_officers(admin: Rest, service: Running) -> None:
    admin.done("POST", "/v1/keyrings", {"label": "rest officers"})
    admin.done("POST", "/v1/keyrings/rest%20officers/krso", {"password": "a first password"})
    first = {"as": "keyring", "keyring": "rest officers", "role": "krso", "password": "a first password"}
    service.rest.ask("POST", "/v1/sessions", first).refused(403, "PasswordMustChange")
    service.rest.done("POST", "/v1/passwords", {**first, "new": KRSO})
    krso = service.rest.logged_in(**{**first, "password": KRSO})
    krso.done("PUT", "/v1/krco", {"password": "the crypto officer's"})
    assert not krso.done("GET", "/v1/policy")["policy"]["import"]
    changed = krso.done("PATCH", "/v1/policy", {"changes": {"minimum_rsa_bits": 4096}})
    assert changed["policy"]["minimum_rsa_bits"] == 4096
    krso.ask("PATCH", "/v1/policy", {"changes": {"self": 1}}).refused(422, "ArgumentInvalid")
    assert krso.done("GET", "/v1/rekey")["generation"] == 1
    assert krso.done("POST", "/v1/rekey")["open"] in (True, False)
    krso.ask("GET", "/v1/policy").refused(401, "CredentialChanged")
    assert admin.done("GET", "/v1/keyrings/rest%20officers/locks")["locks"] == []
    admin.done("POST", "/v1/keyrings/rest%20officers/unlock", {"role": "krco"})
    admin.done("DELETE", "/v1/keyrings/rest%20officers")


def test_the_cluster_is_looked_after(admin: Rest) -> None:
    (member,) = admin.done("GET", "/v1/members")["items"]
    name = member["name"]
    (seen,) = admin.done("GET", "/v1/cluster/overview")["seen"]["members"]
    assert (seen["name"], seen["figures"]["hsm"]["state"]) == (name, "activated")
    assert admin.done("GET", "/v1/cluster/version")["waits_for"] == []
    admin.done("POST", "/v1/groups", {"label": "rest-west"})
    admin.done("PUT", f"/v1/members/{name}/group", {"group": "rest-west"})
    wait_until(lambda: admin.done("GET", f"/v1/members/{name}")["group"] == "rest-west", "the member moved")
    admin.done("PUT", f"/v1/members/{name}/group", {"group": "local"})
    wait_until(lambda: admin.done("GET", f"/v1/members/{name}")["group"] == "local", "the member moved back")
    admin.done("DELETE", "/v1/groups/rest-west")
    admin.ask("PATCH", f"/v1/members/{name}", {}).refused(422, "ArgumentInvalid")
    admin.done("PATCH", f"/v1/members/{name}", {"name": name})
    for act in ("remove", "leave"):
        admin.ask("POST", f"/v1/members/{name}/{act}").refused(409, "NotPossible")
    admin.ask("POST", f"/v1/members/{name}/delete", {}).refused(409, "NotPossible")
    admin.ask("POST", "/v1/members/nobody/promote").refused(404, "NameUnknown")
    assert not admin.done("POST", f"/v1/members/{name}/divergent-entries", {})["diverged"]
    assert admin.done("POST", "/v1/invitations")["text"]
    assert admin.done("GET", "/v1/approvals") | {"items": []} == {
        "items": [], "total": 0, "next": "", "current": True, "whole_until": 0, "skipped": [],
    }  # fmt: skip
    smk = admin.done("GET", "/v1/smk")
    assert [each["generation"] for each in smk["generations"]] == [smk["in_use"]]
    before = admin.done("GET", "/v1/cluster/policy")["policy"]
    changed = admin.done("PATCH", "/v1/cluster/policy", {"changes": {"objects_per_keyring": 300}})["policy"]
    assert changed == {**before, "objects_per_keyring": 300}
    back = {"objects_per_keyring": before["objects_per_keyring"]}
    assert admin.done("PATCH", "/v1/cluster/policy", {"changes": back})["policy"] == before


def finished(admin: Rest, job: dict[str, Any]) -> dict[str, Any]:
    """A job that is done; it failed at nothing."""
    wait_until(lambda: admin.done("GET", f"/v1/backup-jobs/{job['id']}")["state"] != "running", "the job")
    job = admin.done("GET", f"/v1/backup-jobs/{job['id']}")
    assert (job["state"], job["problem"]) == ("done", None)
    return job


def test_an_archive_is_made_fetched_in_parts_brought_back_and_checked(admin: Rest) -> None:
    key = str(uuid.uuid4())
    begun = [admin.ask("POST", "/v1/backups", Idempotency_Key=key) for _ in range(2)]
    assert [each.status for each in begun] == [202, 202]
    assert begun[0].json["id"] == begun[1].json["id"]
    name = finished(admin, begun[0].json)["archive"]
    shown = admin.done("GET", f"/v1/backups/{name}")
    assert name in [each["name"] for each in admin.done("GET", "/v1/backups?limit=256")["items"]]
    path = f"/v1/backups/{name}/content"
    whole = admin.ask("GET", path)
    assert (whole.status, len(whole.body), whole.headers["etag"]) == (200, shown["size"], f'"{shown["hash"]}"')
    half = shown["size"] // 2
    rest = admin.ask("GET", path, Range=f"bytes={half}-")
    assert (rest.status, rest.body) == (206, whole.body[half:])
    assert rest.headers["content-range"] == f"bytes {half}-{shown['size'] - 1}/{shown['size']}"
    admin.ask("GET", path, Range=f"bytes={shown['size'] + 1}-").refused(416, "ArgumentInvalid")
    finished(admin, admin.done("POST", f"/v1/backups/{name}/verify"))
    admin.done("DELETE", f"/v1/backups/{name}")
    admin.ask("GET", path).refused(404, "NameUnknown")
    other = "rest-brought.lnhb"
    damaged = bytes(whole.body[:-1]) + bytes([whole.body[-1] ^ 1])
    admin.ask("PUT", f"/v1/backups/{other}/content", raw=damaged, Content_Type=OCTETS).refused(409, "ArchiveInvalid")
    brought = admin.ask("PUT", f"/v1/backups/{other}/content", raw=whole.body, Content_Type=OCTETS)
    assert (brought.status, brought.json["hash"]) == (200, shown["hash"]), brought.body
    assert finished(admin, admin.done("POST", f"/v1/backups/{other}/check"))["changes"] == 0
    admin.ask("POST", "/v1/backups/nothing.lnhb/restore").refused(404, "NameUnknown")
    admin.ask("PUT", "/v1/backups/x/content", raw=b"x", Content_Type=OCTETS).refused(422, "ArgumentInvalid")
    admin.ask("PUT", f"/v1/backups/{other}/content", raw=b"{}").refused(415, "MalformedMessage")
    admin.done("DELETE", f"/v1/backups/{other}")


def test_backups_are_scheduled(admin: Rest) -> None:
    admin.done("PUT", "/v1/backup-schedule", {"schedule": {"every": "day", "minute": 120, "keep": 3}})
    shown = admin.done("GET", "/v1/backup-schedule")
    assert (shown["schedule"]["keep"], "02:00" in shown["words"]) == (3, True)
    assert admin.done("DELETE", "/v1/backup-schedule")["schedule"] is None


def test_the_audit_trail_is_read_exported_and_verified(admin: Rest) -> None:
    first = admin.done("GET", "/v1/audit")
    lines = first["lines"]
    assert json.loads(lines[0])["index"] == 1
    exported = admin.ask("GET", "/v1/audit/export")
    assert "audit.jsonl" in exported.headers["content-disposition"]
    assert exported.body.decode().splitlines()[: len(lines)] == lines
    state = admin.done("GET", "/v1/audit/verification")
    assert (state["holds"], state["problem"], state["first"]) == (True, "", 1)
    assert state["records"] > state["signed"] - 1 > 0
    assert state["identity"].startswith("SHA256:")
    later = admin.done("GET", f"/v1/audit?after={first['last']}")
    assert later["last"] > first["last"], "that it was read is in it"


def test_an_object_is_changed_and_destroyed_at_the_version_that_was_seen(holder: Rest) -> None:
    (made,) = holder.done("POST", "/v1/keys", {"key_type": "AES", "attributes": {"label": "rest"}})["objects"]
    path = f"/v1/objects/{made['handle']}"
    change = {"attributes": {"label": "rest 2"}}
    holder.ask("PATCH", path, change).refused(428, "ArgumentInvalid")
    for tag in ('"7"', '"2"'):
        holder.ask("PATCH", path, change, If_Match=tag).refused(412, "VersionConflict")
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        labels = [{"attributes": {"label": f"rest {number}"}} for number in range(6)]
        told = list(pool.map(lambda each: holder.ask("PATCH", path, each, If_Match='"1"'), labels))
    assert sorted(each.status for each in told) == [200, 412, 412, 412, 412, 412], [each.body for each in told]
    (done,) = (each for each in told if each.status == 200)
    shown = holder.ask("GET", path)
    assert (done.headers["etag"], shown.headers["etag"], shown.json) == ('"2"', '"2"', done.json)
    holder.ask("DELETE", path, If_Match='"1"').refused(412, "VersionConflict")
    assert holder.ask("PATCH", path, change, If_Match="*").headers["etag"] == '"3"'
    assert holder.ask("DELETE", path, If_Match='"3"').status == 204
    holder.ask("PATCH", path, change, If_Match="*").refused(404, "ObjectUnknown")


def test_keys_are_made_of_keys_and_carried_by_them(holder: Rest) -> None:
    made: list[str] = []

    def new(path: str, body: Any) -> Any:
        found = holder.done("POST", path, body)
        made.append(found["handle"])
        return found

    wrapping = {"key_type": "AES", "attributes": {"label": "rest wrap", "wrap": True, "unwrap": True}}
    (wrapper,) = holder.done("POST", "/v1/keys", wrapping)["objects"]
    plain = {"key_type": "AES", "attributes": {"label": "rest carried", "extractable": True}}
    (carried,) = holder.done("POST", "/v1/keys", plain)["objects"]
    made += [wrapper["handle"], carried["handle"]]
    wrapped = holder.done("POST", f"/v1/keys/{wrapper['handle']}/wrap", {"key": carried["handle"]})["wrapped"]
    unwrap = {"wrapped": wrapped, "object_class": "SECRET_KEY", "key_type": "AES", "attributes": {"label": "rest back"}}
    back = new(f"/v1/keys/{wrapper['handle']}/unwrap", unwrap)
    sealed = holder.done("POST", f"/v1/keys/{back['handle']}/encrypt", {"data": base64_of(b"hello")})
    assert holder.done("POST", f"/v1/keys/{carried['handle']}/decrypt", sealed)["data"] == base64_of(b"hello")
    holder.ask("GET", f"/v1/objects/{carried['handle']}/value").refused(403, "AttributeSensitive")

    (base,) = holder.done("POST", "/v1/keys", {"key_type": "GENERIC_SECRET", "attributes": {"derive": True}})["objects"]
    made.append(base["handle"])
    derive = {"key_type": "AES", "parameters": {"info": base64_of(b"rest")}, "mechanism": "HKDF_DERIVE"}
    derived = [new(f"/v1/keys/{base['handle']}/derive", derive)["handle"] for _ in range(2)]
    sealed = holder.done("POST", f"/v1/keys/{derived[0]}/encrypt", {"data": base64_of(b"hello")})
    assert holder.done("POST", f"/v1/keys/{derived[1]}/decrypt", sealed)["data"] == base64_of(b"hello")

    kem = holder.done("POST", "/v1/key-pairs", {"key_type": "ML_KEM"})
    made += [kem[half]["handle"] for half in ("public", "private")]
    inside = holder.done("POST", f"/v1/keys/{kem['public']['handle']}/encapsulate", {"key_type": "AES"})
    made.append(inside["key"]["handle"])
    carries = {"ciphertext": inside["ciphertext"], "key_type": "AES"}
    outside = new(f"/v1/keys/{kem['private']['handle']}/decapsulate", carries)
    many = holder.done("POST", f"/v1/keys/{inside['key']['handle']}/encrypt-many", {"messages": ["YQ==", "Yg=="]})
    ciphertexts = {"ciphertexts": [each["result"] for each in many["results"]] + ["AAAA"]}
    found = holder.done("POST", f"/v1/keys/{outside['handle']}/decrypt-many", ciphertexts)["results"]
    assert [each["result"] for each in found] == ["YQ==", "Yg==", None]
    assert found[2]["problem"]["error"] == "EncryptedDataInvalid"

    copy = new(f"/v1/objects/{carried['handle']}/copy", {"attributes": {"label": "rest copy"}})
    assert (copy["label"], copy["attributes"]["extractable"]) == ("rest copy", True)
    note = new("/v1/objects", {"object_class": "DATA", "value": base64_of(b"a note"), "attributes": {"label": "rest"}})
    assert holder.done("GET", f"/v1/objects/{note['handle']}")["attributes"]["value"] == b"a note".hex()
    pairs = {"key_type": "EC", "curve": "P-256", "attributes": {"label": "rest-"}, "total": 2}
    several = holder.done("POST", "/v1/key-pairs/many", pairs)["pairs"]
    assert [each["public"]["label"] for each in several] == ["rest-1", "rest-2"]
    made += [each[half]["handle"] for each in several for half in ("public", "private")]
    signed = holder.done("POST", f"/v1/keys/{several[0]['private']['handle']}/sign-many", {"messages": ["YQ=="]})
    verify = {"data": "YQ==", "signature": signed["results"][0]["result"]}
    assert holder.done("POST", f"/v1/keys/{several[0]['public']['handle']}/verify", verify)["valid"]
    text = holder.done("GET", f"/v1/objects/{several[0]['public']['handle']}/public?form=jwk")["text"]
    assert json.loads(text)["crv"] == "P-256"
    brought = holder.done("POST", "/v1/key-files", {"file": base64_of(text.encode()), "label": "rest again"})["objects"]
    made += [each["handle"] for each in brought]
    assert [each["label"] for each in brought] == ["rest again"]
    holder.ask("POST", "/v1/key-files", {"file": "YQ==", "attributes": {"label": "x"}}).refused(422, "AttributeInvalid")
    for handle in made:
        holder.done("DELETE", f"/v1/objects/{handle}")


def test_data_of_any_length_is_encrypted_decrypted_and_hashed(holder: Rest) -> None:
    (made,) = holder.done("POST", "/v1/keys", {"key_type": "AES", "attributes": {"label": "rest long"}})["objects"]
    data = os.urandom(2 * limits.REST_BODY_BYTES + limits.PART_BYTES + 1)
    path, aad = f"/v1/keys/{made['handle']}", base64.b64encode(b"invoice 7").decode()
    sealed = holder.ask("POST", f"{path}/encrypt-stream?aad={aad}", raw=data, Content_Type=OCTETS)
    assert (sealed.status, len(sealed.body)) == (200, len(data) + 12 + 16), sealed.body[:300]
    opened = holder.ask("POST", f"{path}/decrypt-stream?aad={aad}", raw=sealed.body, Content_Type=OCTETS)
    assert (opened.status, opened.body) == (200, data), opened.body[:300]
    for wrong in (sealed.body[:-1], sealed.body[:20], sealed.body[:40] + b"x" + sealed.body[41:], b""):
        told = holder.ask("POST", f"{path}/decrypt-stream?aad={aad}", raw=wrong, Content_Type=OCTETS)
        told.refused(422, "EncryptedDataInvalid")
    for text in (b"", data):
        hashed = holder.ask("POST", "/v1/digest?mechanism=SHA512", raw=text, Content_Type=OCTETS)
        assert hashed.json == {"digest": base64_of(hashlib.sha512(text).digest())}
    holder.done("DELETE", f"/v1/objects/{made['handle']}")


def test_prometheus_is_told_of_the_service_and_of_members_who_logs_in(service: Running, admin: Rest) -> None:
    for path in ("/healthz", "/readyz", "/v1/health"):
        assert service.rest.done("GET", path)["serving"]
    refused = service.rest.ask("GET", "/metrics")
    refused.refused(401, "TokenUnknown")
    wrong = Rest(service.rest.port, service.rest.context, basic("nobody-of-metrics", "wrong"))
    wrong.ask("GET", "/metrics").refused(401, "PasswordIncorrect")
    monitor = Rest(service.rest.port, service.rest.context, basic("admin", ADMIN))
    begun = time.monotonic()
    told = [monitor.ask("GET", "/metrics") for _ in range(3)]
    assert time.monotonic() - begun < 60, "which do not log in each by itself"
    assert {each.headers["content-type"] for each in told} == {"text/plain; version=0.0.4; charset=utf-8"}
    found = {family.name: family for family in text_string_to_metric_families(told[-1].body.decode())}
    (member,) = admin.done("GET", "/v1/members")["items"]
    (up,) = found["lnh_hsm_activated"].samples
    assert (up.labels, up.value) == ({"told_by": member["name"]}, 1.0)
    (counted,) = (
        each for each in found["lnh_rest_answers"].samples if each.labels == {"route": "GET /metrics", "status": "200"}
    )
    assert counted.value >= 2
    assert PO not in told[-1].body.decode()
