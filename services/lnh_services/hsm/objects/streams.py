"""Takes a long input of one use of a key part by part. Pure.

The worker keeps a `Stream` between two parts. Each part names the bytes that came before it. A part that comes twice is
the same in all that it says: so it is told from the next one, also where it has no bytes, and has its answer again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.hazmat.primitives import constant_time

from lnh_common.errors import LnhError, SignatureInvalid, StreamLost
from lnh_common.messages.objects import Part, Result, StreamedUse
from lnh_common.pkcs11.mechanisms import Use, mechanism
from lnh_services.hsm.crypto.mechanisms import IvSource, Running, accumulator, cipher
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.prepared_keys import CachedKey

USES: Final = {
    StreamedUse.DIGEST: Use.DIGEST,
    StreamedUse.SIGN: Use.SIGN,
    StreamedUse.VERIFY: Use.VERIFY,
    StreamedUse.ENCRYPT: Use.ENCRYPT,
    StreamedUse.DECRYPT: Use.DECRYPT,
}


@dataclass(eq=False)
class Stream:
    """One long input, as far as it came.

    Args:
        first: the part that began it, which says what the others must say, too.
        key: the key in use; None for a hash.
        iv: what every answer says: two workers may have begun one input, each under an IV that it drew.
        offset: bytes taken.
        ended: whether the last part came, or one failed.
        is_recorded: whether the audit trail has a record of this use.
    """

    first: Part
    key: CachedKey | None
    iv: bytes
    running: Running = field(repr=False)
    offset: int = 0
    ended: bool = False
    is_recorded: bool = False
    _last: Part | None = field(default=None, repr=False)
    _answer: Result | LnhError | None = field(default=None, repr=False)

    def take(self, part: Part) -> Result:
        """Take a part; raises StreamLost for one that is neither the next nor the last one again.

        Raises SignatureInvalid, EncryptedDataInvalid, DataLength at the end of the input.
        """
        if part == self._last and self._answer is not None:
            answer = self._answer
        else:
            if part.offset != self.offset or self.ended or _said(part) != _said(self.first):
                raise StreamLost(f"a part behind {part.offset} bytes; {self.offset} came so far")
            answer = self._answer = self._taken(part)
            self._last = part
            self.offset += len(part.data)
        if isinstance(answer, LnhError):
            raise answer
        return answer

    def _taken(self, part: Part) -> Result | LnhError:
        self.ended = part.last
        try:
            data = self.running.update(part.data)
            if part.last:
                data += self.running.finish()
            if part.last and part.use is StreamedUse.VERIFY:
                if not constant_time.bytes_eq(data, part.signature):
                    raise SignatureInvalid
                data = b""
        except LnhError as error:
            self.ended = True
            return error
        return Result(data=data, iv=self.iv)


def _said(part: Part) -> tuple[object, ...]:
    """Return what all parts of an input say alike: a tag that is verified is not to be answered at the end."""
    return part.use, part.mechanism, part.handle, part.parameters


def begin(part: Part, key: CachedKey | None, policy: Policy, ivs: IvSource) -> Stream:
    """Begin a stream with its first part, which is not taken yet.

    Raises what `policy.check_permitted` and the mechanism raise; StreamLost for a part that is not the first.
    """
    if part.offset:
        raise StreamLost(f"a part behind {part.offset} bytes that did not come here")
    chosen, use = mechanism(part.mechanism), USES[part.use]
    first = msgspec.structs.replace(part, data=b"")
    if key is None:
        rules.check_mechanism(use, chosen, policy)
        return Stream(first, None, b"", accumulator(chosen, use, None, part.parameters))
    rules.check_permitted(key.attributes, use, chosen, policy)
    if use in (Use.SIGN, Use.VERIFY):
        return Stream(first, key, b"", accumulator(chosen, use, key.loaded, part.parameters))
    caller_ivs = policy.allows_caller_ivs
    iv, running = cipher(chosen, use, key.loaded, ivs, part.parameters, caller_ivs=caller_ivs)
    return Stream(first, key, iv, running)
