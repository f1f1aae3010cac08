"""Look at a running lab: SSH, one script a node, facts, snapshots, captures."""
