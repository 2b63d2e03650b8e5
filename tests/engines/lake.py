"""What the engines that plan with PyIceberg have in common."""

import pyiceberg.catalog


def catalog(uri, store):
    properties = {"type": "rest", "uri": uri}
    if "key" in store:
        properties |= {
            "s3.endpoint": store["endpoint"],
            "s3.access-key-id": store["key"],
            "s3.secret-access-key": store["secret"],
            "s3.region": store["region"],
        }
    return pyiceberg.catalog.load_catalog("lake", **properties)


class Lake:
    """Answers what is the same whatever reads the files."""

    def __init__(self, uri, store):
        self.catalog = catalog(uri, store)
        self.store = store

    def table(self, table):
        return self.catalog.load_table(("frazil", table))

    def tables(self):
        return [name for _, name in self.catalog.list_tables("frazil")]

    def snapshots(self, table):
        return [snapshot.snapshot_id for snapshot in self.table(table).metadata.snapshots]
