"""The command line has an option for each parameter of each mechanism, made from the table."""

from __future__ import annotations

import pytest
import typer

from lnh_cli.main import tree
from lnh_cli.support.parameters import mechanism_options
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use, parameters_of
from lnh_common.pkcs11.parameters import GcmParameters, MacParameters, OaepParameters, PssParameters

VERBS = {Use.SIGN: "sign", Use.VERIFY: "verify", Use.ENCRYPT: "encrypt", Use.DECRYPT: "decrypt"}


@pytest.mark.parametrize("use", VERBS)
def test_every_parameter_of_every_mechanism_is_an_option_of_its_verb(use: Use) -> None:
    command = typer.main.get_command(tree(VERBS[use])).commands[VERBS[use]]  # type: ignore[attr-defined]
    options = {word for parameter in command.params for word in parameter.opts}
    for mechanism in Mechanism:
        if use in MECHANISM_RULES[mechanism].uses:
            assert {f"--{each.name.replace('_', '-')}" for each in parameters_of(mechanism)} <= options


@pytest.mark.parametrize(
    ("use", "mechanism", "given", "made"),
    [
        (Use.ENCRYPT, Mechanism.AES_GCM, {"aad": "0a0b"}, GcmParameters(aad=b"\n\x0b")),
        (Use.ENCRYPT, Mechanism.AES_GCM, {}, None),
        (Use.SIGN, Mechanism.RSA_PKCS_PSS, {"hash": "sha384"}, PssParameters(hash=Hash.SHA384)),
        (Use.SIGN, Mechanism.SHA256_RSA_PKCS_PSS, {"salt_length": 0}, PssParameters(salt_length=0)),
        (Use.SIGN, Mechanism.SHA256_RSA_PKCS_PSS, {"prehashed": True}, PssParameters(prehashed=True)),
        (
            Use.DECRYPT,
            Mechanism.RSA_PKCS_OAEP,
            {"hash": "SHA-1", "label": "ff"},
            OaepParameters(hash=Hash.SHA1, label=b"\xff"),
        ),
        (Use.VERIFY, Mechanism.SHA256_HMAC_GENERAL, {"length": 16}, MacParameters(length=16)),
    ],
)
def test_what_is_given_becomes_the_mechanisms_parameters(
    use: Use, mechanism: Mechanism, given: dict[str, object], made: object
) -> None:
    assert mechanism_options(use)(**given).parameters(mechanism) == made  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("use", "mechanism", "given", "said"),
    [
        (Use.SIGN, Mechanism.ECDSA_SHA256, {"context": "00"}, "ECDSA_SHA256 takes no --context"),
        (Use.SIGN, Mechanism.SHA256_HMAC_GENERAL, {}, "SHA256_HMAC_GENERAL needs --length"),
        (Use.SIGN, Mechanism.ML_DSA, {"context": "xyz"}, "'xyz' is not hexadecimal"),
        (Use.SIGN, Mechanism.RSA_PKCS_PSS, {"hash": "SHA-1"}, "--hash 'SHA-1' is none that fits"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(
    use: Use, mechanism: Mechanism, given: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        mechanism_options(use)(**given).parameters(mechanism)  # type: ignore[arg-type]
    assert ended.value.exit_code == 2
    assert said in capsys.readouterr().err
