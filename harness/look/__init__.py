"""What a folder or a file of one's own holds, before anything is trained: ``python -m harness.look data=PATH``."""
