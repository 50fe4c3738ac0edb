//! A Parquet file in an `EncryptedStore`: written by an upload in parts, and queried where it lies. What is fetched for
//! a query is counted, and beside it what the same query fetches if the file is not encrypted.
//!
//! ```text
//! cargo run --release --manifest-path tests/stores/Cargo.toml --example parquet
//! ```
//!
//! The store is memory here. Over S3 it is the same, with an `AmazonS3` in its place.

use std::{error::Error, sync::Arc};

use agcm::{
    Key,
    object_store::{EncryptedStore, StoreOptions},
};
use agcm_stores::Watched;
use arrow_array::{BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, cast::AsArray, types};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, memory::InMemory, path::Path};
use parquet::{
    arrow::{
        AsyncArrowWriter, ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, RowFilter},
        async_reader::AsyncFileReader,
    },
    file::{metadata::PageIndexPolicy, properties::WriterProperties},
};

/// So many rows an hour.
const ROWS: i32 = 1000;
const HOURS: i32 = 1500;

/// What some thermometer said, in any of its hours.
fn measured(hour: i32) -> Float64Array {
    (0..ROWS).map(|row| f64::from((hour * 7919 + row * 104_729) % 1_000_003).sqrt()).collect::<Vec<_>>().into()
}

fn rows(hour: i32) -> Result<RecordBatch, Box<dyn Error>> {
    let ids = (0..ROWS).map(|row| i64::from(hour * ROWS + row).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    let others: Vec<_> = ids.clone().map(|id| id.rotate_left(17)).collect();
    Ok(RecordBatch::try_from_iter([
        ("hour", Arc::new(Int32Array::from(vec![hour; ROWS as usize])) as _),
        ("measured", Arc::new(measured(hour)) as _),
        ("id", Arc::new(Int64Array::from(ids.collect::<Vec<_>>())) as _),
        ("other", Arc::new(Int64Array::from(others)) as _),
    ])?)
}

/// Writes the file, some MB at a time.
pub async fn write(store: Arc<dyn ObjectStore>, path: &Path) -> Result<(), Box<dyn Error>> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(250_000)).build();
    let upload = BufWriter::new(store, path.clone());
    let mut writer = AsyncArrowWriter::try_new(upload, rows(0)?.schema(), Some(properties))?;
    for hour in 0..HOURS {
        writer.write(&rows(hour)?).await?;
    }
    writer.close().await?;
    Ok(())
}

/// How many rows there are of an hour, and the sum of what was measured: a column, and a filter on another.
pub async fn query(reader: impl AsyncFileReader + Unpin + 'static, hour: i32) -> Result<(usize, f64), Box<dyn Error>> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await?;
    let mask = |name| ProjectionMask::columns(builder.parquet_schema(), [name]);
    let is_hour = ArrowPredicateFn::new(mask("hour"), move |batch| {
        Ok(BooleanArray::from_unary(batch.column(0).as_primitive::<types::Int32Type>(), |found| found == hour))
    });
    let measured = mask("measured");
    let batches = builder.with_projection(measured).with_row_filter(RowFilter::new(vec![Box::new(is_hour)])).build()?;
    let batches: Vec<_> = batches.try_collect().await?;
    let values = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<types::Float64Type>().values().iter());
    Ok((batches.iter().map(RecordBatch::num_rows).sum(), values.sum()))
}

/// What a query has cost.
#[derive(Debug)]
pub struct Cost {
    pub object: u64,
    pub requests: usize,
    pub fetched: u64,
}

/// Writes the file into a store over `watched`, queries it, and checks the answer.
pub async fn measure(store: Arc<dyn ObjectStore>, watched: &Watched, hour: i32) -> Result<Cost, Box<dyn Error>> {
    let path = Path::from("2026/measured.parquet");
    write(store.clone(), &path).await?;
    let object = watched.inner().head(&path).await?.size;
    watched.log();
    watched.received();

    // The reader is Parquet's own, and knows nothing of encryption.
    let size = store.head(&path).await?.size;
    #[expect(
        deprecated,
        reason = "who reads Parquet from a store writes some lines in its place, or has them from elsewhere"
    )]
    let reader = parquet::arrow::async_reader::ParquetObjectReader::new(store, path).with_file_size(size);
    let found = query(reader, hour).await?;
    let expected = measured(hour);
    assert_eq!(found, (expected.len(), expected.values().iter().sum()));
    Ok(Cost { object, requests: watched.log().len(), fetched: watched.received() })
}

#[tokio::main]
#[allow(dead_code, reason = "the tests have their own")]
async fn main() -> Result<(), Box<dyn Error>> {
    let show = |name: &str, Cost { object, requests, fetched }: Cost| {
        println!(
            "{name}: {fetched} of {object} bytes in {requests} requests ({:.2} %)",
            100. * fetched as f64 / object as f64
        );
    };
    let watched = Watched::new(InMemory::new());
    show("not encrypted", measure(Arc::new(watched.clone()), &watched, 700).await?);
    for kib in [4, 64, 256] {
        let watched = Watched::new(InMemory::new());
        let options = StoreOptions::new().chunk_size(kib * 1024)?;
        let store = EncryptedStore::with_options(watched.clone(), &Key::generate(), &options);
        show(&format!("in chunks of {kib} KiB"), measure(Arc::new(store), &watched, 700).await?);
    }
    Ok(())
}
