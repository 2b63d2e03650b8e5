//! `cargo bench -p frazil-micro`, or `-- segment` for some.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use frazil_micro::cases;

fn all(criterion: &mut Criterion) {
    for case in cases::all() {
        let (what, how) = case.name.split_once('/').unwrap_or((case.name, ""));
        let mut group = criterion.benchmark_group(what);
        if let Some(bytes) = case.bytes {
            group.throughput(Throughput::Bytes(bytes));
        }
        group.bench_function(how, |bencher| {
            let mut work = (case.prepare)();
            bencher.iter(&mut work);
        });
        group.finish();
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
