"""Whether images fit a model: one sentence that says what to choose, before anything is built."""

import math

ImageSize = int | tuple[int, int]


def require(condition: bool, sentence: str) -> None:
    """Raise ValueError with this sentence unless the condition holds."""
    if not condition:
        raise ValueError(sentence)


def check_reduction(name: str, image_size: ImageSize, reduction: int) -> None:
    """Raise ValueError unless images are as large as a model shrinks them."""
    height, width = sides(image_size)
    require(
        min(height, width) >= reduction,
        f"{name} shrinks its input {reduction} times, so images of {height}x{width} pixels are too small; "
        f"choose a model with fewer stages, or larger images.",
    )


def sides(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width; one number means square images."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def check_patch(image_size: ImageSize, patch_size: int) -> None:
    """Raise ValueError unless patches divide images."""
    height, width = sides(image_size)
    common = math.gcd(height, width)
    divisors = ", ".join(str(size) for size in range(1, common + 1) if common % size == 0)
    require(
        common % patch_size == 0,
        f"Patches of {patch_size}x{patch_size} pixels do not divide images of {height}x{width}; "
        f"choose model.patch_size among {divisors}.",
    )
