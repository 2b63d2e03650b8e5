//! What the formats of tables cost, on one core: `cargo bench -p frazil-table`. Rates count the
//! thread's processor time, so that other work on the machine disturbs them little.
//!
//! | figure | of what |
//! |---|---|
//! | convert | record batches to a data file, per MiB of records before compression |
//! | scan | a data file to record batches, likewise |
//! | limit | the parquet crate reads every column of the same file and keeps nothing |
//! | random | 1000 records at a random offset, from files of a local directory |
//! | stored | bytes of the data file to bytes of the records |
#![expect(
    clippy::disallowed_methods,
    reason = "the directory is real, so are the reads"
)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use frazil_core::batch::{BatchBuilder, BatchHeader, Codec, batches};
use frazil_core::{Offset, TopicId, TopicPartition};
use frazil_table::manifest::{Editor, Found, Node, NodeRef};
use frazil_table::read::coalesce;
use frazil_table::{Fetched, GroupIndex, GroupRef, ObjectId, Read, Writer, WriterConfig};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};

const MIB: f64 = (1 << 20) as f64;
const READS: usize = 300;
const FILE: ObjectId = ObjectId::new(1, 1);
const PARTITION: TopicPartition = TopicPartition::new(TopicId::new(uuid::Uuid::nil()), 0);

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// An event as services write them: names repeat, ids and numbers do not.
fn json(numbers: &mut Numbers, length: usize) -> String {
    const KINDS: [&str; 6] = [
        "view",
        "click",
        "add_to_cart",
        "purchase",
        "search",
        "login",
    ];
    const WORDS: [&str; 16] = [
        "delta", "harbour", "copper", "lantern", "meadow", "violet", "granite", "ember", "willow",
        "summit", "anchor", "thistle", "marble", "saffron", "juniper", "cobalt",
    ];
    let mut text = format!(
        r#"{{"id":"{:016x}{:016x}","user":{},"kind":"{}","at":{},"amount":{}.{:02},"address":"10.{}.{}.{}""#,
        numbers.next(),
        numbers.next(),
        numbers.below(1_000_000),
        KINDS[numbers.below(6) as usize],
        1_700_000_000_000 + numbers.below(100_000_000),
        numbers.below(1000),
        numbers.below(100),
        numbers.below(256),
        numbers.below(256),
        numbers.below(256),
    );
    let mut field = 0;
    while text.len() < length {
        let word = WORDS[numbers.below(16) as usize];
        let other = WORDS[numbers.below(16) as usize];
        text += &format!(
            r#","{word}_{field}":{{"label":"{other}","rank":{}}}"#,
            numbers.below(10_000)
        );
        field += 1;
    }
    text.truncate(length.max(1) - 1);
    text + "}"
}

/// Records of one kind, in batches as producers make them.
struct Input {
    name: &'static str,
    batches: Vec<(Offset, Bytes)>,
    end: Offset,
    bytes: usize,
}

fn input(name: &'static str, value: usize, headers: bool, codec: Codec, total: usize) -> Input {
    let mut numbers = Numbers(0x5DEE_CE66_D1CE_4E5B);
    let mut input = Input {
        name,
        batches: Vec::new(),
        end: Offset(0),
        bytes: 0,
    };
    while input.bytes < total {
        let mut batch = BatchBuilder::new().codec(codec);
        while batch.bytes() < 256 << 10 {
            let key = format!("user-{}", numbers.below(1_000_000));
            let value = json(&mut numbers, value);
            let trace = format!("{:016x}", numbers.next());
            let headers: &[(&[u8], Option<&[u8]>)] = match headers {
                true => &[
                    (b"trace", Some(trace.as_bytes())),
                    (b"source", Some(b"bench")),
                ],
                false => &[],
            };
            let timestamp = 1_700_000_000_000 + input.end.0 + i64::from(batch.records());
            batch.push(
                timestamp,
                Some(key.as_bytes()),
                Some(value.as_bytes()),
                headers,
            );
        }
        input.bytes += batch.bytes();
        input.batches.push((input.end, batch.build()));
        input.end = input.end + batch.records();
    }
    input
}

fn convert(input: &Input, config: WriterConfig) -> (Bytes, Vec<GroupRef>) {
    let mut writer = Writer::new(FILE, config).expect("a level that exists");
    let mut parts = Vec::new();
    writer.begin(0, Offset(0));
    for (base, batch) in &input.batches {
        writer.push_batch(*base, batch).expect("batches are sound");
        parts.extend(writer.take_parts());
    }
    writer.end(input.end).expect("in memory");
    let written = writer.finish();
    parts.extend(written.parts);
    (parts.concat().into(), written.groups)
}

/// Every row group as a task of a scan does it.
fn scan(file: &Bytes, groups: &[GroupRef], codec: Codec) -> usize {
    let mut bytes = 0;
    for group in groups {
        let slice =
            |range: std::ops::Range<u64>| file.slice(range.start as usize..range.end as usize);
        let index = GroupIndex::parse(group, &slice(group.index_range())).expect("sound");
        let mut fetched = Fetched::default();
        fetched.add(group.start, slice(group.range()));
        for batch in Read::all(group, &index)
            .batches(&fetched, codec)
            .expect("sound")
        {
            bytes += batch.len();
        }
    }
    bytes
}

/// What decoding every column takes another implementation, which makes nothing of it.
fn limit(file: &Bytes) -> usize {
    let reader = SerializedFileReader::new(file.clone()).expect("a Parquet file");
    let mut values = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).expect("a row group");
        for column in 0..group.num_columns() {
            macro_rules! read {
                ($reader:expr) => {{
                    let mut reader = $reader;
                    let (mut defs, mut reps, mut out) = (Vec::new(), Vec::new(), Vec::new());
                    loop {
                        out.clear();
                        defs.clear();
                        reps.clear();
                        let (rows, _, _) = reader
                            .read_records(1000, Some(&mut defs), Some(&mut reps), &mut out)
                            .expect("a sound page");
                        if rows == 0 {
                            break;
                        }
                        values += black_box(&out).len();
                    }
                }};
            }
            match group.get_column_reader(column).expect("a column") {
                ColumnReader::Int32ColumnReader(reader) => read!(reader),
                ColumnReader::Int64ColumnReader(reader) => read!(reader),
                ColumnReader::ByteArrayColumnReader(reader) => read!(reader),
                _ => unreachable!("there are no other columns"),
            }
        }
    }
    values
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The best of several runs, in MiB of records a second.
fn rate<T>(bytes: usize, mut run: impl FnMut() -> T) -> (f64, T) {
    let mut best = Duration::MAX;
    let mut last = None;
    for _ in 0..3 {
        let start = processor_time();
        last = Some(black_box(run()));
        best = best.min(processor_time() - start);
    }
    (
        bytes as f64 / MIB / best.as_secs_f64(),
        last.expect("it ran"),
    )
}

/// A directory as an object store.
struct Store<'a> {
    directory: &'a Path,
    gets: usize,
}

impl Store<'_> {
    fn get(&mut self, name: &str, range: std::ops::Range<u64>) -> Bytes {
        self.gets += 1;
        let file = File::open(self.directory.join(name)).expect("an object");
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).expect("bytes");
        bytes.into()
    }

    fn manifest(&mut self, reference: &NodeRef) -> Node {
        let bytes = self.get(&reference.id.to_string(), 0..u64::from(reference.length));
        Node::parse(&PARTITION, reference, &bytes).expect("sound")
    }
}

/// 1000 records at random offsets: with nothing cached, and with manifest and index cached.
fn random(input: &Input, file: &Bytes, groups: &[GroupRef], codec: Codec) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("data"), file).expect("writing");
    // The file stands for many: a partition of a thousand times its size.
    let copies = 1000;
    let mut editor = Editor::new(PARTITION, None, Offset(0), ObjectId::new(2, 0));
    for copy in 0..copies {
        let shift = copy * input.end.0;
        let shifted = groups.iter().map(|group| GroupRef {
            base: Offset(group.base.0 + shift),
            end: Offset(group.end.0 + shift),
            ..group.clone()
        });
        editor.append(shifted.collect()).expect("they tile");
    }
    let edited = editor.finish();
    for (id, bytes) in &edited.objects {
        std::fs::write(directory.path().join(id.to_string()), bytes).expect("writing");
    }
    let root = edited.root.expect("not empty");

    let mut numbers = Numbers(99);
    let mut store = Store {
        directory: directory.path(),
        gets: 0,
    };
    for warm in [false, true] {
        let mut times = Vec::new();
        let mut work = Duration::ZERO;
        let mut gets = 0;
        let mut bytes = 0;
        for _ in 0..READS {
            let from = Offset(numbers.below((input.end.0 * copies) as u64 - 1000) as i64);
            let local = Offset(from.0 % input.end.0);
            let found = groups.partition_point(|group| group.end <= local);
            let cached = warm.then(|| {
                let group = groups[found].clone();
                let index = store.get("data", group.index_range());
                (GroupIndex::parse(&group, &index).expect("sound"), group)
            });
            store.gets = 0;
            let start = Instant::now();
            let worked = processor_time();
            let mut fetched = Fetched::default();
            let (index, group) = cached.unwrap_or_else(|| {
                let mut node = store.manifest(&root);
                while let Some(Found::Node(below)) = node.find(from) {
                    let below = below.clone();
                    node = store.manifest(&below);
                }
                let Some(Found::Group(shifted)) = node.find(from) else {
                    panic!("{from} is in the manifest");
                };
                let whole = store.get("data", shifted.range());
                fetched.add(shifted.start, whole.clone());
                // The copy's offsets are shifted, its bytes are not.
                let group = groups[found].clone();
                let index = whole.slice(..group.index_length as usize);
                (GroupIndex::parse(&group, &index).expect("sound"), group)
            });
            // As many bytes as 1000 records have.
            let budget = 1000 * input.bytes as u64 / input.end.0 as u64;
            let read = Read::from(&group, &index, local, budget);
            if warm {
                // What lies between keys and values is read with them rather than asked for anew.
                for range in coalesce(&read.ranges(), 8 << 20) {
                    bytes += range.end - range.start;
                    fetched.add(range.start, store.get("data", range));
                }
            }
            black_box(read.batches(&fetched, codec).expect("sound"));
            work += processor_time() - worked;
            times.push(start.elapsed());
            gets += store.gets;
        }
        times.sort();
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        println!(
            "  random {}  p50 {:.2} ms  p99 {:.2} ms  of it {:.2} ms at work  {:.1} GETs{}",
            if warm { "warm" } else { "cold" },
            ms(READS / 2),
            ms(READS * 99 / 100),
            work.as_secs_f64() * 1e3 / READS as f64,
            gets as f64 / READS as f64,
            if warm {
                format!(" of {} KiB", (bytes / READS as u64) >> 10)
            } else {
                String::new()
            },
        );
    }
}

fn main() {
    // `cargo test` runs benches too, to see that they start.
    let total = if std::env::args().any(|arg| arg == "--bench") {
        48 << 20
    } else {
        1 << 20
    };
    let inputs = [
        input("1 KiB JSON", 1000, false, Codec::None, total),
        input("1 KiB JSON, lz4, headers", 1000, true, Codec::Lz4, total),
        input("100 B JSON", 100, false, Codec::None, total),
        input("10 B", 10, false, Codec::None, total),
        input("64 KiB JSON, zstd", 64 << 10, false, Codec::Zstd, total),
    ];
    for input in &inputs {
        let records: usize = input
            .batches
            .iter()
            .flat_map(|(_, batch)| batches(batch))
            .map(|batch| {
                batch.map_or(0, |(header, _): (BatchHeader, _)| {
                    header.record_count as usize
                })
            })
            .sum();
        println!(
            "{}: {records} records, {:.0} MiB",
            input.name,
            input.bytes as f64 / MIB
        );
        for zstd_level in [1, 3] {
            let config = WriterConfig {
                zstd_level,
                ..WriterConfig::default()
            };
            let (mib, (file, groups)) = rate(input.bytes, || convert(input, config));
            println!(
                "  convert, zstd {zstd_level}  {mib:.0} MiB/s  stored {:.3} in {} row groups",
                file.len() as f64 / input.bytes as f64,
                groups.len()
            );
            if zstd_level != WriterConfig::default().zstd_level {
                continue;
            }
            for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
                let (mib, _) = rate(input.bytes, || scan(&file, &groups, codec));
                println!("  scan to {codec:?}  {mib:.0} MiB/s");
            }
            let (mib, _) = rate(input.bytes, || limit(&file));
            println!("  limit  {mib:.0} MiB/s");
            random(input, &file, &groups, Codec::None);
        }
    }
}
