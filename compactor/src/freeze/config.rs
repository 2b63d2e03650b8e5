use std::time::Duration;

/// How topics are converted.
#[derive(Clone, Debug)]
pub struct FreezeConfig {
    /// The URL at which table engines find what is below the cluster's prefix, without a slash at
    /// its end.
    pub location: String,
    /// Between two looks at what waits.
    pub interval: Duration,
    /// Jobs at once, at least 1.
    pub jobs: usize,
    /// Bytes of memory that a job may take, at least 32 MiB. A single batch can ask for more: one
    /// with a record of 47 MiB takes 270 MiB.
    pub memory: usize,
    /// Bytes of segments that one job converts at most (but at least one segment).
    pub job_bytes: u64,
    /// Bytes of a topic that may wait, whatever its freshness. By default what a processor converts in
    /// half a minute, or in one and a half if it is compressed well: so much later than its freshness says
    /// a table is after a burst.
    pub waiting_bytes: u64,
    /// Extents of a topic that may wait, whatever its freshness: they are in the memory of every node, some
    /// 70 bytes each.
    pub waiting_extents: u64,
    /// Between two looks at what a table can forget. The first one comes after a minute.
    pub upkeep: Duration,
    /// How long a claim keeps other compactors from the topic, from its last renewal on. A job
    /// renews it three times in that time. At least some seconds.
    pub lease: Duration,
}

impl FreezeConfig {
    /// The defaults, for tables at `location`.
    pub fn new(location: String) -> Self {
        Self {
            location,
            interval: Duration::from_secs(1),
            jobs: 1,
            memory: 256 << 20,
            job_bytes: 1 << 30,
            waiting_bytes: 8 << 30,
            waiting_extents: 200_000,
            upkeep: Duration::from_secs(600),
            lease: Duration::from_secs(30),
        }
    }

    /// Bytes of segments that a job holds at once.
    pub(super) fn round_bytes(&self) -> u64 {
        self.memory as u64 / 4
    }

    /// Bytes of a data file. One is written while the one before is being put.
    pub(super) fn file_bytes(&self) -> u64 {
        self.memory as u64 / 4
    }

    /// Bytes of a merged data file at most. Small inputs, up to half of this, are held besides.
    pub(super) fn merged_bytes(&self) -> u64 {
        self.memory as u64 / 2
    }

    pub(super) fn lease_ms(&self) -> u32 {
        u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX)
    }
}
