"""Verifications in the store, each under a digest of its id."""

from collections.abc import Callable

from ..errors import RefusalReason, VerificationRefusedError
from ..stores import Store, hashed_key
from .state import VerificationState

__all__ = ["Verifications"]


class Verifications:
    """The verifications of a store.

    Args:
        store: The store.
        ttl: Seconds for which a verification is stored after its last change.
    """

    def __init__(self, store: Store, ttl: float) -> None:
        self._store = store
        self._ttl = ttl

    async def add(self, verification_id: str, state: VerificationState) -> None:
        """Store a new one."""
        await self.update(verification_id, lambda _: state.dump())

    async def remove(self, verification_id: str) -> None:
        """Remove one that nobody knows of."""
        await self.update(verification_id, lambda _: None)

    async def update(self, verification_id: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Change what is stored of one; see `Store.update`."""
        await self._store.update(_key(verification_id), change, ttl=self._ttl)

    async def get(self, verification_id: object) -> VerificationState | None:
        """Return one, if there is one with this id."""
        value = await self._store.get(_key(verification_id)) if isinstance(verification_id, str) else None
        return None if value is None else VerificationState.load(value)

    async def change(
        self, verification_id: str, change: Callable[[VerificationState], VerificationState]
    ) -> VerificationState:
        """Change one, and return its new state.

        Args:
            verification_id: Its id.
            change: Returns the new state for the present one. It may be called several times.

        Raises:
            VerificationRefusedError: There is none.
        """

        def apply(value: bytes | None) -> bytes:
            if value is None:
                raise VerificationRefusedError("the verification has ended", reason=RefusalReason.NOT_PENDING)
            before = VerificationState.load(value)
            after = change(before)
            return value if after == before else after.dump()

        value = await self._store.update(_key(verification_id), apply, ttl=self._ttl)
        return VerificationState.load(value or b"")


def _key(verification_id: str) -> str:
    return hashed_key("verification", verification_id)
