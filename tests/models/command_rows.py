"""Command lines whose table and `--json` are compared (`tests/cluster/test_wrong_input.py`): one for each verb that has both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A command that is run both ways, in this order: as a table, and with `--json`.

    Args:
        words: what is typed; `{n}` is another word in each way, `{root}` the place.
        own: whether it is done on a machine of its own, which is not registered.
        apart: whether its logins are kept apart from those of the others.
        settles: whether the members take a moment to see it.
        anew, moves, computed: as of `Comparison`.
    """

    words: str
    own: bool = False
    apart: bool = False
    settles: bool = False
    anew: bool = False
    moves: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()


SEEN = frozenset({"last_heard", "state", "clients"})  # a member that joined, or was primary, takes a moment
_WAITS = frozenset({"waits_for"})  # a member that joined is waited for until it is in step
_FIGURES = frozenset({"lease", "lag", "ops/s", "writes/s", "p50 ms", "p99 ms", "in flight", "waiting", "clients", "workers", "disk free", "version"})  # fmt: skip

# All but the last commands are asked of the member of the place; those at a console of B, which joins its cluster.
ROWS = (
    Row("appliance init --member-dir {root}/B"),
    Row("hsm init --member-dir {root}/B --label B-{n} --activation-file {root}/ACTIVATION --domain-file {root}/DOMAIN", anew=True),
    Row("hsm show --member-dir {root}/B", anew=True),
    Row("partition create --member-dir {root}/B own-{n}", anew=True),
    Row("partition list --member-dir {root}/B", anew=True),
    Row("partition password --member-dir {root}/B own-{n} --new-password-file {root}/CO"),
    Row("hsm password --member-dir {root}/B --new-password-file {root}/SO"),
    Row("partition show --member-dir {root}/B own-{n}", anew=True),
    Row("key generate moved-{n} --member-dir {root}/B --partition own-{n} -t AES --set extractable=true", anew=True),
    Row("migrate --member-dir {root}/B --partition own-{n} -k payments --yes", anew=True),
    Row("key delete moved-{n} -k payments --yes"),
    Row("partition delete --member-dir {root}/B own-{n} --yes"),
    Row("hsm set-activation --member-dir {root}/B --shares 2-of-3 --qr --shares-to {root}/held-{n}"),
    Row("hsm deactivate --member-dir {root}/B --share-file {root}/held-{n}/activation.share-1 --share-file {root}/held-{n}/activation.share-3 --yes"),
    Row("hsm activate --member-dir {root}/B --share-file {root}/held-{n}/activation.share-3 --share-file {root}/held-{n}/activation.share-2"),
    Row("appliance reset-admin --member-dir {root}/B --new-password-file {root}/ADMIN"),
    Row("package install --member-dir {root}/B cluster --yes"),
    Row("package list --member-dir {root}/B"),
    Row("appliance show --member-dir {root}/B"),
    Row("cluster create --member-dir {root}/B other-{n}", anew=True),
    Row("cluster delete --member-dir {root}/B --yes"),
    Row("member invite -o {root}/invitation-{n}", anew=True),
    Row("member invite", anew=True),
    Row("cluster join --member-dir {root}/B --invitation {root}/invitation-{n}", anew=True, settles=True),
    Row("member list", moves=SEEN),
    Row("member show B", moves=SEEN, anew=True),
    Row("group create east-{n}"),
    Row("member move B east-{n}"),
    Row("group list"),
    Row("member move B local"),
    Row("group delete east-{n} --yes"),
    Row("member set B --name C-{n}"),
    Row("member set C-{n} --name B"),
    Row("member promote B", settles=True),
    Row("member promote A", settles=True),
    Row("member divergent A"),
    Row("cluster show", moves=SEEN),
    Row("cluster show --member-dir {root}/A"),
    Row("cluster upgrade --check", moves=_WAITS),
    Row("cluster upgrade --yes", moves=_WAITS),
    Row("cluster policy minimum_rsa_bits=2048"),
    Row("status", moves=SEEN | {"detail"}),
    Row("top --once", computed=_FIGURES, moves=SEEN, anew=True),
    Row("doctor"),
    Row("cluster leave --member-dir {root}/B --yes"),
    Row("hsm factory-reset --member-dir {root}/B --yes"),
    Row("appliance reimage --member-dir {root}/B --yes"),
    Row("bootstrap secrets --root {root}/{n}"),
    Row("keyring list"),
    Row("keyring show payments"),
    Row("keyring policy -k payments"),
    Row("keyring create kr-{n}", anew=True),
    Row("role init -k kr-{n} --new-password-file {root}/NEW"),
    Row("role list -k kr-{n}"),
    Row("role password -k kr-{n} --role krso --password-file {root}/NEW --new-password-file {root}/KRSO"),
    Row("role unlock -k kr-{n} --role krso"),
    Row("role reset -k kr-{n} --new-password-file {root}/KRCO"),
    Row("keyring rekey -k kr-{n}"),
    Row("role login -k kr-{n}", apart=True, anew=True),
    Row("role logout -k kr-{n}", apart=True),
    Row("keyring delete kr-{n} --yes"),
    Row("user add u-{n} --role monitor --new-password-file {root}/NEW"),
    Row("user list"),
    Row("user login -u u-{n} --password-file {root}/NEW", apart=True, anew=True),
    Row("user logout -u u-{n}", apart=True),
    Row("user password -u u-{n} --password-file {root}/NEW --new-password-file {root}/KRSO"),
    Row("user unlock u-{n}"),
    Row("user reset u-{n} --new-password-file {root}/NEW"),
    Row("user delete u-{n} --yes"),
    Row("user role create clerk-{n} --permission view --permission groups"),
    Row("user role list"),
    Row("user role show clerk-{n}"),
    Row("user role delete clerk-{n} --yes"),
    Row("client register --member {address} --fingerprint {fingerprint} --name web-{n}", own=True, anew=True),
    Row("client register --list", own=True, anew=True),
    Row("client register --remove 00 --yes", own=True),
    Row("client list", anew=True),
    Row("client assign web-{n} many"),
    Row("client unassign web-{n} many"),
    Row("client show web-{n}", anew=True),
    Row("client revoke web-{n} --yes"),
    Row("key generate aes-{n} -k payments -t AES", anew=True),
    Row("key generate ec-{n} -k payments --id 0a0b", anew=True),
    Row("key generate rsa-{n} -k payments -t RSA -b 2048 --timeout 60", anew=True),
    Row("key generate dsa-{n} -k payments -t ML_DSA", anew=True),
    Row("key list -k payments --label shown"),
    Row("key show shown -k payments --class public"),
    Row("key set aes-{n} id=0c -k payments", anew=True, moves=frozenset({"check_value"})),
    Row("key export ec-{n} -k payments", anew=True),
    Row("key export ec-{n} -k payments --der -o {root}/der-{n}"),
    Row("sign ec-{n} data -k payments --hex", anew=True),
    Row("digest data"),
    Row("digest data --in-hsm -k payments"),
    Row("random 16 -k payments --hex", anew=True),
    Row("cluster policy import=true"),
    Row("key import {root}/in.pem -k payments --label in-{n}", anew=True),
    Row("key export in-{n} -k payments --form jwk -o {root}/jwk-{n}"),
    Row("certificate self-sign ec-{n} --subject CN=root -k payments", anew=True),
    Row("certificate list -k payments --label ec-{n}", anew=True),
    Row("certificate show ec-{n} -k payments", anew=True),
    Row("certificate export ec-{n} -k payments -o {root}/root-{n}"),
    Row("certificate request in-{n} --subject CN=a --name DNS:a.example -k payments -o {root}/csr-{n}"),
    Row("certificate issue ec-{n} {root}/csr-{n} --profile server -k payments -o {root}/leaf-{n}"),
    Row("certificate import {root}/leaf-{n} -k payments --label leaf-{n}", anew=True),
    Row("certificate verify {root}/leaf-{n} --root {root}/root-{n} --profile server", anew=True),
    Row("certificate crl ec-{n} -k payments -o {root}/crl-{n}"),
    Row("certificate revoke ec-{n} {root}/leaf-{n} -k payments --yes -o {root}/crl-{n}"),
    *(Row(f"certificate delete {label}-{{n}} -k payments --yes") for label in ("leaf", "ec")),
    Row("data delete ec-{n} -k payments --yes"),
    Row("data import notes-{n} data -k payments", anew=True),
    Row("data list -k payments --label notes-{n}", anew=True),
    Row("data show notes-{n} -k payments", anew=True),
    Row("data export notes-{n} -k payments -o {root}/notes-{n}"),
    Row("data delete notes-{n} -k payments --yes"),
    Row("key delete in-{n} -k payments --yes"),
    Row("encrypt aes-{n} data -k payments -o {root}/encrypted-{n}"),
    Row("encrypt aes-{n} data -k payments --hex", anew=True),
    Row("decrypt aes-{n} {root}/encrypted-{n} -k payments --hex"),
    Row("sign ec-{n} data -k payments -o {root}/signature-{n}"),
    Row("verify ec-{n} data -k payments --signature {root}/signature-{n}"),
    Row("key generate kek-{n} -k payments -t AES --set wrap=true --set unwrap=true", anew=True),
    Row("key generate un-{n} -k payments -t AES --set unwrap=true --set unwrap_template.derive=true", anew=True),
    Row("key show un-{n} -k payments", anew=True, moves=frozenset({"check_value"})),
    Row("key generate inner-{n} -k payments -t AES --set extractable=true", anew=True),
    Row("key wrap kek-{n} inner-{n} -k payments --hex", anew=True),
    Row("key wrap kek-{n} inner-{n} -k payments -o {root}/wrapped-{n}"),
    Row("key unwrap kek-{n} back-{n} {root}/wrapped-{n} -k payments", anew=True, moves=frozenset({"check_value"})),
    Row("key copy back-{n} copy-{n} -k payments", anew=True, moves=frozenset({"check_value"})),
    Row("key generate base-{n} -k payments -t GENERIC_SECRET --set derive=true", anew=True),
    Row("key derive base-{n} out-{n} -k payments --info 00ff", anew=True, moves=frozenset({"check_value"})),
    Row("key generate kem-{n} -k payments -t ML_KEM", anew=True),
    Row("key encapsulate kem-{n} mine-{n} -k payments --hex", anew=True),
    Row("key encapsulate kem-{n} sent-{n} -k payments -o {root}/kem-{n}"),
    Row("key decapsulate kem-{n} theirs-{n} {root}/kem-{n} -k payments", anew=True, moves=frozenset({"check_value"})),
    *(
        Row(f"key delete {label}-{{n}} -k payments --yes")
        for label in ("aes", "ec", "rsa", "dsa", "kek", "un", "inner", "back", "copy", "base", "out", "kem", "mine", "sent", "theirs")
    ),
    Row("backup now --to {root}/to-{n}", anew=True),
    Row("backup list", anew=True),
    Row("backup show {archive}", anew=True),
    Row("backup verify {archive}", anew=True),
    Row("backup download {archive} --to {root}", anew=True),
    Row("backup delete {archive} --yes", anew=True),
    Row("backup schedule --daily 02:30 --zone Europe/Berlin --keep 3 --on A"),
    Row("backup schedule --off"),
    Row("smk backup {root}/smk-{n}", anew=True),
    Row("smk show"),
    Row("smk backup {root}/split-{n} --shares 2-of-3 --qr --shares-to {root}", anew=True),
    Row("smk show --backup {root}/smk-once"),
    Row("audit show --member-dir {root}/A"),
    Row("audit export {root}/trail-{n}", anew=True),
    Row("audit export {root}/cef-{n} --format cef --after 3", anew=True),
    Row("audit check {root}/trail-{n} --identity {identity}", anew=True),
    Row("audit verify --member-dir {root}/A", anew=True, computed=frozenset({"problem", "indexes"})),
)  # fmt: skip

# Of a list and of what shows one of its things: the things are the same, by the field that names them.
SHOWN_AGAIN = {
    "keyring list": ("keyring show payments", "label"),
    "client list": ("client show web-{n}", "id"),
    "member list": ("member show B", "id"),
    "key list -k payments --label shown": ("key show shown -k payments --class public", "handle"),
    "user role list": ("user role show clerk-{n}", "name"),
    "partition list --member-dir {root}/B": ("partition show --member-dir {root}/B own-{n}", "serial"),
    "backup list": ("backup show {archive}", "name"),
}

_BY_TWO = "another person is needed; tests/cluster/test_wrong_input.py reads its JSON"

# What has `--json` and is not run both ways here.
NOT_BOTH_WAYS = {
    ("smk", "rollover"): "each makes a generation, of which there are few; test_backup_members.py reads its JSON",
    ("smk", "retire"): "there is one after each rollover; tests/cluster/test_backup_members.py reads its JSON",
    ("smk", "restore"): "a new HSM would have to be made for each; tests/cluster/test_backup.py reads its JSON",
    (
        "backup",
        "restore",
    ): "it ends every session and puts the passwords back; tests/cluster/test_backup.py reads its JSON",
    ("bench",): "it measures, for seconds each time; tests/cluster/test_client.py reads its JSON",
    ("kms", "serve"): "it serves until it is ended; tests/cluster/test_kms.py asks it",
    ("kms", "status"): "it asks a plugin, which tests/cluster/test_kms.py starts",
    ("rest", "serve"): "it serves until it is ended; tests/cluster/test_rest.py asks it",
    ("rest", "openapi"): "a document is JSON both ways; tests/unit/rest/test_rest_table.py reads it",
    ("pkcs11", "serve"): "it serves until it is ended; tests/cluster/test_client_edges.py runs it",
    ("pkcs11", "env"): "lines for a shell, which have no table",
    ("pkcs11", "unit"): "lines of a file, which have no table",
    ("pkcs11", "slots"): "it lists by lnh.aio, and a row has what the JSON has",
    ("engine", "check"): "it ends with 1 where there is no etcd; tests/cluster/test_etcd_client.py compares both",
    ("drill",): "it makes a cluster of its own; tests/cluster/test_drill.py reads its JSON",
    ("bootstrap", "cluster"): "it begins with members that are set up by nobody; tests/cluster/test_bootstrap.py",
    ("approval", "list"): _BY_TWO,
    ("approval", "approve"): _BY_TWO,
    ("approval", "deny"): _BY_TWO,
    ("cluster", "password"): "it ends the session that each command after it goes by; another test here reads its JSON",
    ("member", "delete"): "a member would have to be lost for each; it says what `member remove` does",
    ("member", "remove"): "a member would have to join for each; it says what `cluster leave` does",
}
