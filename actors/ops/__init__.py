"""Operations: looking at a store and acting on it, without any code of the user's. Nothing imports this layer."""

__all__: list[str] = []
