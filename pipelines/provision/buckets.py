"""What an archive's bucket needs on S3 and on Cloud Storage alike: how long, and whether for ever."""

from __future__ import annotations

from pipelines.flags.settings import Settings
from pipelines.packs.retention import Framework, framework
from pipelines.provision.plan import CannotProvision, Certainty, required


def needed(settings: Settings, name: str) -> str:
    """The bucket's name. Raises CannotProvision without one, and for a lock without years."""
    bucket = required(settings, f"{name}_bucket", name)
    kept = years(settings)
    if settings["object_lock"] != "off" and kept is None:
        raise CannotProvision(
            "--object_lock: needs --retention, whose least years an object is locked for", bad=True
        )
    if settings["object_lock"] != "off" and kept and (kept.erasable or not kept.least):
        raise CannotProvision(
            f"--object_lock: cannot be with --retention={kept.name}: {kept.note or 'it has no least years'}",
            bad=True,
        )
    return str(bucket)


def prefix(settings: Settings, name: str) -> str:
    """What all keys of the archive begin with, "" for a bucket of its own."""
    given = settings[f"{name}_prefix"]  # without slashes around it
    return f"{given}/" if given else ""


def years(settings: Settings) -> Framework | None:
    """The framework of --retention."""
    return framework(settings["retention"]) if settings["retention"] else None


def counted(number: int) -> str:
    """Years in words."""
    return f"{number} year{'' if number == 1 else 's'}"


def for_ever(settings: Settings, bucket: str) -> Certainty | None:
    """The second question of --object_lock=compliance, unless it is answered already."""
    kept = years(settings)
    if settings["object_lock"] != "compliance" or kept is None or settings["lock_for_ever"] == bucket:
        return None
    return Certainty(
        f"Every object will be locked for {counted(kept.least)} from its writing, and NOBODY can take that "
        "back: not you, not the account's owner, not the provider; what it costs is due until then. Type the "
        "bucket's name to go on:",
        bucket,
        f"--lock_for_ever={bucket}",
    )


def left_out(settings: Settings) -> list[str]:
    """What was not asked for, and how it is."""
    if not settings["retention"]:
        return ["for how long: --retention=hipaa (say) sets cheaper classes and the day when objects go"]
    if settings["object_lock"] == "off" and not framework(settings["retention"]).erasable:
        return ["against deletion: --object_lock=governance locks objects for the least years"]
    return []
