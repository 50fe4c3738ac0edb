#![no_main]

/// Memory is bounded, whatever a stream or a file says of itself.
#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 128 << 20);

libfuzzer_sys::fuzz_target!(|data: &[u8]| agcm_fuzz::legacy::run(data));
