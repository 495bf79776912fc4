"""What hardware there is and what runs on it. The only room that knows a GPU, and the only importer of RAPIDS."""
