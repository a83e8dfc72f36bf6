"""Report of `check` on a data set, as it is printed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

_SHOWN = 5  # images of a finding that are printed
SHOWN_CLASSES = 2  # the first and the last so many, by which a person sees a wrong reading


@dataclass(frozen=True)
class Finding:
    """Something to know of a data set. fatal: training cannot use the data as they are.

    what: one sentence. remedy: a step or a command. images: all that are concerned.
    """

    what: str
    remedy: str
    images: list[str] = field(default_factory=list)
    fatal: bool = False


@dataclass(frozen=True)
class Example:
    """A class, what a person calls it, how many images it has, and one of them."""

    name: str
    title: str
    images: int
    image: str


@dataclass(frozen=True)
class Count:
    """Images of a split: all of them, and those of a class.

    examples: the first and the last classes.
    """

    images: int
    classes: int
    smallest: int
    median: float
    largest: int
    examples: list[Example]


@dataclass
class Report:
    """Findings of `check`. layout: what it was recognised as, or None."""

    path: str
    layout: str | None = None
    splits: dict[str, Count] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """True if training can begin."""
        return not any(finding.fatal for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """Format for a person: of long lists the beginning, except of what is fatal."""
        yield f"{self.path}: {self.layout or 'not usable'}"
        for name, count in self.splits.items():
            yield (
                f"{name:<5} {count.images:,} images in {count.classes:,} classes, "
                f"{count.smallest:,} to {count.largest:,} each (median {count.median:g})"
            )
            for at, example in enumerate(count.examples):
                if at == SHOWN_CLASSES and count.classes > 2 * SHOWN_CLASSES:
                    yield "        ..."
                title = f" ({example.title})" if example.title != example.name else ""
                yield f"        {example.name}{title}: {example.images:,}, {example.image}"
        for finding in sorted(self.findings, key=lambda finding: not finding.fatal):
            kind = "error" if finding.fatal else "note "
            yield f"{kind} {finding.what} {finding.remedy}".rstrip()
            shown = finding.images if finding.fatal else finding.images[:_SHOWN]
            yield from (f"        {image}" for image in shown)
            if len(finding.images) > len(shown):
                yield f"        and {len(finding.images) - len(shown):,} more (--json has them all)"
        yield "Ready to train on." if self.usable else "Not usable until the errors are mended."
