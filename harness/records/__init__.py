"""Records: what runs leave behind, the tables of a study, and the evidence that is committed."""

from harness.paths import RESULTS
from harness.records.publish import import_files, load_published, merge, publish
from harness.records.store import (
    SCHEMA,
    cell,
    damaged,
    examples,
    finished,
    flat,
    read,
    run_folder,
    save,
    save_failure,
    write_json,
    write_text,
)
from harness.records.study import StudyData, check_content, load_study, write_study

__all__ = [
    "RESULTS",
    "SCHEMA",
    "StudyData",
    "cell",
    "check_content",
    "damaged",
    "examples",
    "finished",
    "flat",
    "import_files",
    "load_published",
    "load_study",
    "merge",
    "publish",
    "read",
    "run_folder",
    "save",
    "save_failure",
    "write_json",
    "write_study",
    "write_text",
]
