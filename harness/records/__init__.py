"""Records: what runs leave behind, the tables of a study, and the evidence that is committed."""

from harness.paths import RESULTS
from harness.records.publish import import_files, load_published, merge, publish, publish_tables
from harness.records.store import (
    SCHEMA,
    STATUSES,
    cell,
    damaged,
    examples,
    finished,
    flat,
    read,
    read_folder,
    run_folder,
    save,
    save_failure,
    write_json,
    write_text,
)
from harness.records.study import (
    NoRecords,
    StudyData,
    check_content,
    evidence_folders,
    load_study,
    vouched,
    write_study,
)

__all__ = [
    "RESULTS",
    "SCHEMA",
    "STATUSES",
    "NoRecords",
    "StudyData",
    "cell",
    "check_content",
    "damaged",
    "evidence_folders",
    "examples",
    "finished",
    "flat",
    "import_files",
    "load_published",
    "load_study",
    "merge",
    "publish",
    "publish_tables",
    "read",
    "read_folder",
    "run_folder",
    "save",
    "save_failure",
    "vouched",
    "write_json",
    "write_study",
    "write_text",
]
