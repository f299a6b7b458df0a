"""What the metadata of an installed distribution says."""

from __future__ import annotations

from importlib import metadata


def unmet_requirements(distribution: str) -> list[str]:
    """Describe each requirement of a distribution that this environment does not meet."""
    from packaging.requirements import Requirement

    if not version_of(distribution):
        return ["has metadata for another name"]
    problems = []
    for text in metadata.requires(distribution) or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"needs {requirement}, which is not installed")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                problems.append(f"needs {requirement}, but {requirement.name} is {version}")
    return problems


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution, "" if it has no metadata."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
