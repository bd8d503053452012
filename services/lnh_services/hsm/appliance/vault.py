"""Holds the HSM's state while it is activated, and the key that seals it; the only writer of its files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from lnh_common.errors import ActivationFailed, NotActivated
from lnh_common.secret import Secret
from lnh_common.wire.shares import Split
from lnh_services.hsm.appliance import preconditions
from lnh_services.hsm.appliance.partitions import PartitionFiles
from lnh_services.hsm.appliance.preconditions import Situation
from lnh_services.hsm.appliance.state import Appliance, ApplianceFile, Cover, HsmState, Phase, SealedState, StateFile


class Vault:
    """The HSM's state as it is on disk, and in clear while activated. Every change is durable when it returns."""

    def __init__(self, state_file: StateFile, appliance_file: ApplianceFile, partitions: PartitionFiles) -> None:
        """Read state and appliance; raises SealBroken, FileModeUnsafe, StorageFailed."""
        self.partitions: Final = partitions
        self._state_file: Final = state_file
        self._appliance_file: Final = appliance_file
        self._appliance = appliance_file.read()
        found = state_file.read()
        self._cover: Cover | None = found.cover if found else None
        self._state: HsmState | None = None
        self._key: Secret | None = None

    @property
    def situation(self) -> Situation:
        """The situation of the appliance, as `preconditions` judges it."""
        return Situation(self._appliance, self._cover is not None, self._state)

    @property
    def cover(self) -> Cover | None:
        """The cover of the state, known without activation; None when the HSM is not initialised."""
        return self._cover

    @property
    def state(self) -> HsmState | None:
        """The state while the HSM is activated, else None."""
        return self._state

    @property
    def opened(self) -> HsmState:
        """The state while the HSM is activated; raises NotActivated."""
        if self._state is None:
            raise NotActivated("the HSM is not activated")
        return self._state

    def new_cover(self, label: str, identity: bytes) -> Cover:
        """Make the cover of a new state file."""
        return self._state_file.cover(label, identity)

    def initialise(self, state: HsmState, cover: Cover, key: bytes) -> None:
        """Write the first state, sealed under `key`, and hold it activated."""
        assert self._cover is None, "an initialised HSM is erased before it is initialised again"
        state = replace(state, packages=self._appliance.packages)
        state = preconditions.take_waiting_users(state, self._appliance)
        self._state_file.write(state, cover, key)
        self._state, self._cover, self._key = state, cover, Secret(key)
        self._forget_waiting()

    def new_activation(self, split: Split | None) -> Cover:
        """Make the cover under which the state is sealed by another activation secret; raises NotActivated."""
        state = self.opened
        return self._state_file.cover(state.label, state.identity_public(), split)

    def reseal(self, cover: Cover, key: bytes) -> None:
        """Seal the state under another key from now on; raises NotActivated, StorageFailed, which change nothing."""
        self._state_file.write(self.opened, cover, key)
        if self._key is not None:
            self._key.wipe()
        self._cover, self._key = cover, Secret(key)

    def activate(self, key: bytes) -> None:
        """Open the state; raises ActivationFailed."""
        sealed = self._sealed()
        state = sealed.open(key)
        self._state, self._cover, self._key = state, sealed.cover, Secret(key)
        if state.cluster is not None and state.cluster.phase is Phase.CREATED and not self._appliance.initialised:
            self.change_appliance(lambda now: replace(now, initialised=True))  # a crash came between the two files
        if self._appliance.waiting:
            self.change(lambda now: preconditions.take_waiting_users(now, self._appliance))
            self._forget_waiting()

    def is_key(self, key: bytes) -> bool:
        """Tell, in constant time, whether this key seals the activated state."""
        return self._key is not None and self._key == Secret(key)

    def deactivate(self) -> None:
        """Forget the state and its key."""
        if self._key is not None:
            self._key.wipe()
        self._state = self._key = None

    def change(self, how: Callable[[HsmState], HsmState]) -> HsmState:
        """Replace the state by `how` of it, on disk first; raises what `how` raises, NotActivated, StorageFailed."""
        state = how(self.opened)
        assert self._cover is not None, "an activated HSM has a state file"
        assert self._key is not None, "an activated HSM holds its key"
        self._state_file.write(state, self._cover, self._key.reveal())
        self._state = state
        return state

    def change_appliance(self, how: Callable[[Appliance], Appliance]) -> None:
        """Replace the appliance's knowledge without its HSM, on disk first; raises StorageFailed."""
        appliance = how(self._appliance)
        self._appliance_file.write(appliance)
        self._appliance = appliance

    def factory_reset(self) -> None:
        """Erase the HSM's state; packages stay, and users too unless a cluster had taken them over."""
        state = self.opened
        kept = replace(
            self._appliance,
            packages=state.packages,
            waiting=state.users,
            initialised=bool(state.users),
        )
        self.change_appliance(lambda _: kept)
        self._erase_state()

    def reimage(self) -> None:
        """Erase everything: the HSM's state, every partition and the appliance."""
        self._erase_state()
        self._appliance_file.erase()
        self._appliance = Appliance()

    def remove_partition(self, label: str) -> None:
        """Erase a partition's key, and then the objects sealed under it; raises PartitionUnknown, StorageFailed."""
        serial = preconditions.find_partition(self.opened, label).serial
        self.change(lambda state: preconditions.remove_partition(state, label))
        self.partitions.erase(serial)

    def _erase_state(self) -> None:
        self._state_file.erase()
        self.partitions.erase_all()
        self.deactivate()
        self._cover = None

    def _sealed(self) -> SealedState:
        sealed = self._state_file.read()
        if sealed is None:
            raise ActivationFailed("the HSM's state file is gone")
        return sealed

    def _forget_waiting(self) -> None:
        if self._appliance.waiting:
            self.change_appliance(lambda appliance: replace(appliance, waiting=()))
