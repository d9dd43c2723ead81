//! The GGUF reader against true, lying, truncated and mutated files.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use peerproof_engine::gguf::{
    GgmlType, Gguf, GgufError, MAX_KEYS, MAX_TENSORS, ValueType, model_id,
};
use proptest::prelude::*;
use support::{ARRAY, BOOL, F32, STR, U8, U32, Writer, string, words};

fn sample() -> Writer {
    Writer::default()
        .str("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .f32("llama.eps", 1e-5)
        .bool("tokenizer.add_bos", true)
        .raw("small", U8, &[7])
        .strings("tokens", &[&b"a"[..], b"", b"\xff\xfe", "größer".as_bytes()])
        .i32s("types", &[1, -3, i32::MAX])
        .array("scores", F32, 2, &words(&[1.5f32.to_bits(), (-0.25f32).to_bits()]))
        .array("counts", U32, 2, &words(&[9, u32::MAX]))
        .array("nested", ARRAY, 2, &[words(&[U8, 2, 0]), vec![1, 2], words(&[STR, 0, 0])].concat())
        .tensor("norm", &[3], 0, &[1; 12])
        .tensor("weight", &[64, 2], 3, &[2; 80])
        .tensor("embedding", &[32, 1, 3], 8, &[3; 102])
}

fn refused(writer: &Writer) -> GgufError {
    match Gguf::parse(writer.bytes()) {
        Ok(_) => panic!("a bad file was taken"),
        Err(error) => error,
    }
}

/// The file is refused, and the message holds every one of `words`.
fn refuses(writer: &Writer, words: &[&str]) {
    let message = refused(writer).to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn a_true_file_reads_back() {
    let file = Gguf::parse(sample().bytes()).unwrap();
    assert_eq!((file.version(), file.alignment()), (3, 32));
    assert_eq!(file.str("general.architecture").unwrap(), "llama");
    assert_eq!(file.u32("llama.block_count").unwrap(), 2);
    assert_eq!(file.u32("small").unwrap(), 7);
    assert_eq!(file.f32("llama.eps").unwrap(), 1e-5);
    assert!(file.bool("tokenizer.add_bos").unwrap());
    let tokens: Vec<&[u8]> = file.strings("tokens").unwrap().collect();
    assert_eq!(tokens, [&b"a"[..], b"", b"\xff\xfe", "größer".as_bytes()]);
    assert_eq!(file.strings("tokens").unwrap().len(), 4);
    assert_eq!(file.i32s("types").unwrap().collect::<Vec<_>>(), [1, -3, i32::MAX]);
    assert_eq!(file.f32s("scores").unwrap().collect::<Vec<_>>(), [1.5, -0.25]);
    assert_eq!(file.u32s("counts").unwrap().collect::<Vec<_>>(), [9, u32::MAX]);
    assert_eq!(file.optional_u32("absent").unwrap(), None);
    assert_eq!(file.keys().len(), 10);
    assert!(file.keys().any(|(key, kind)| key == "nested" && kind == ValueType::Array));
    let weight = file.tensor("weight").unwrap();
    assert_eq!((weight.kind, weight.dims), (GgmlType::Q4_1, &[64, 2][..]));
    assert_eq!((weight.row_len(), weight.rows(), weight.elements()), (64, 2, 128));
    assert_eq!(weight.data, [2; 80]);
    let names: Vec<&str> = file.tensors().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["norm", "weight", "embedding"]);
    assert_eq!(file.tensor("embedding").unwrap().data, [3; 102]);
    assert!(file.optional_tensor("absent").is_none());
}

#[test]
fn a_wrong_question_names_the_key() {
    let file = Gguf::parse(sample().bytes()).unwrap();
    for (error, words) in [
        (file.u32("absent").unwrap_err(), ["absent", "no key"]),
        (file.u32("general.architecture").unwrap_err(), ["general.architecture", "got Str"]),
        (file.str("small").unwrap_err(), ["small", "got U8 7"]),
        (file.strings("types").map(drop).unwrap_err(), ["types", "3 I32"]),
        (file.i32s("nested").map(drop).unwrap_err(), ["nested", "2 Array"]),
        (file.tensor("absent").map(drop).unwrap_err(), ["absent", "no tensor"]),
    ] {
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let file = Gguf::parse(Writer::default().raw("k", STR, &string(b"\xff")).bytes()).unwrap();
    assert!(matches!(file.str("k"), Err(GgufError::NotUtf8 { .. })));
}

#[test]
fn every_truncation_of_the_header_is_refused() {
    let whole = sample().bytes();
    let header = sample().header().len();
    for len in 0..header {
        assert!(Gguf::parse(&whole[..len]).is_err(), "{len} of {header} bytes were taken");
    }
    for len in header..whole.len() {
        let error = Gguf::parse(&whole[..len]).map(drop).unwrap_err();
        assert!(matches!(error, GgufError::BeyondFile { .. }), "{len}: {error}");
    }
}

#[test]
fn lies_about_counts_are_refused() {
    for count in [2, MAX_KEYS, MAX_KEYS + 1, u64::MAX] {
        let mut writer = Writer::default().u32("k", 1);
        writer.key_count = Some(count);
        assert!(Gguf::parse(writer.bytes()).is_err(), "{count} keys");
        let mut writer = Writer::default().info("t", &[1], 0, 0).room(4);
        writer.tensor_count = Some(count.min(MAX_TENSORS + 1));
        assert!(Gguf::parse(writer.bytes()).is_err(), "{count} tensors");
    }
    refuses(&Writer::default().array("a", U32, u64::MAX, &[]), &["\"a\"", "array length"]);
    refuses(&Writer::default().array("a", U8, 1 << 24, &[0; 9]), &["\"a\"", "16777216"]);
    refuses(&Writer::default().array("a", STR, 1 << 24, &[0; 64]), &["\"a\"", "array length"]);
    let long = u64::MAX.to_le_bytes();
    refuses(&Writer::default().raw("s", STR, &long), &["\"s\"", "string length"]);
    refuses(&Writer::default().array("s", STR, 1, &long), &["\"s\"", "string length"]);
}

#[test]
fn bad_preambles_are_refused() {
    assert!(matches!(Gguf::parse(*b"GGML\x03\0\0\0").unwrap_err(), GgufError::Magic { .. }));
    for version in [0, 1, 4, 3u32.swap_bytes()] {
        let mut writer = sample();
        writer.version = Some(version);
        assert!(matches!(refused(&writer), GgufError::Version { got } if got == version));
    }
    let mut writer = sample();
    writer.version = Some(2);
    assert_eq!(Gguf::parse(writer.bytes()).unwrap().version(), 2);
}

#[test]
fn bad_keys_and_values_are_refused_by_name() {
    let base = Writer::default;
    refuses(&base().u32("k", 1).u32("k", 2), &["\"k\"", "twice"]);
    refuses(&base().raw(b"\xff", U8, &[0]), &["key number 0", "UTF-8"]);
    refuses(&base().raw(b"", U8, &[0]), &["key number 0"]);
    refuses(&base().raw("a\nb", U8, &[0]), &["key number 0"]);
    refuses(&base().raw("x".repeat(1025), U8, &[0]), &["key number 0", "1025", "1024"]);
    refuses(&base().raw("k", 13, &[0; 16]), &["\"k\"", "13"]);
    refuses(&base().raw("k", BOOL, &[2]), &["\"k\"", "truth value"]);
    refuses(&base().array("k", BOOL, 2, &[1, 2]), &["\"k\"", "truth value"]);
    refuses(&base().array("k", 99, 0, &[]), &["\"k\"", "99"]);
    for bad in [0, 4, 24, 1 << 17] {
        refuses(&base().u32("general.alignment", bad), &["general.alignment", &bad.to_string()]);
    }
    refuses(&base().str("general.alignment", "32"), &["general.alignment", "got Str"]);
}

#[test]
fn arrays_in_arrays_end_somewhere() {
    let nest = |depth: usize| {
        let one_array = [words(&[ARRAY]), 1u64.to_le_bytes().to_vec()].concat();
        let mut value = one_array.repeat(depth - 1);
        value.extend([words(&[U8]), 1u64.to_le_bytes().to_vec(), vec![5]].concat());
        Writer::default().raw("deep", ARRAY, &value)
    };
    Gguf::parse(nest(4).bytes()).unwrap();
    refuses(&nest(5), &["\"deep\"", "depth"]);
    refuses(&nest(100_000), &["\"deep\"", "depth"]);
}

#[test]
fn bad_tensors_are_refused_by_name() {
    let base = Writer::default;
    let big = 1 << 40;
    refuses(&base().info("t", &[1], 0, 0).info("t", &[1], 0, 32).room(64), &["\"t\"", "twice"]);
    refuses(&base().info("t", &[4], 0, 0).room(15), &["\"t\"", "beyond", "16", "15"]);
    refuses(&base().info("t", &[4], 0, 64).room(64), &["\"t\"", "beyond"]);
    refuses(&base().info("t", &[4], 0, u64::MAX - 31).room(64), &["\"t\"", "beyond"]);
    refuses(&base().info("t", &[4], 0, 8).room(64), &["\"t\"", "multiple of 32", "8"]);
    refuses(&base().info("t", &[big, big], 0, 0).room(64), &["\"t\"", "product"]);
    refuses(&base().info("t", &[big, 1 << 20], 0, 0).room(64), &["\"t\"", "beyond"]);
    refuses(&base().info("t", &[1 << 62], 0, 0).room(64), &["\"t\"", "product"]);
    refuses(&base().info("t", &[4, 0], 0, 0).room(64), &["\"t\"", "[4, 0]"]);
    refuses(&base().info("t", &[], 0, 0).room(64), &["\"t\"", "dimensions of 0"]);
    refuses(&base().info("t", &[1; 5], 0, 0).room(64), &["\"t\"", "dimensions of 5"]);
    refuses(&base().info("t", &[33], 3, 0).room(64), &["\"t\"", "32", "33"]);
    refuses(&base().info("t", &[1], 77, 0).room(64), &["\"t\"", "77", "Q4_1"]);
    refuses(&base().info(b"\xc0", &[1], 0, 0).room(64), &["tensor number 0"]);
    refuses(&base().info("n".repeat(257), &[1], 0, 0).room(64), &["tensor number 0", "256"]);
    let overlap = base().info("a", &[16], 0, 0).info("b", &[1], 0, 32).room(64);
    refuses(&overlap, &["\"a\"", "\"b\"", "overlaps"]);
}

#[test]
fn truncated_tensors_of_every_format_are_refused_by_name() {
    for kind in GgmlType::all() {
        let (columns, bytes) = (kind.block_elements(), 3 * kind.block_bytes());
        let file = Writer::default().info("t", &[columns, 3], kind.number(), 0);
        Gguf::parse(file.clone().room(bytes as usize).bytes()).unwrap();
        let words = ["\"t\"", "beyond", &bytes.to_string(), &(bytes - 1).to_string()];
        refuses(&file.room(bytes as usize - 1), &words);
        if columns > 1 {
            let file = Writer::default().info("t", &[columns - 1, 3], kind.number(), 0);
            refuses(&file.room(1 << 12), &["\"t\"", &columns.to_string()]);
        }
    }
}

#[test]
fn a_stated_alignment_is_used() {
    let mut writer = Writer::default();
    writer.alignment = Some(4096);
    writer = writer.u32("general.alignment", 4096).tensor("a", &[1], 0, &[1; 4]);
    let file = Gguf::parse(writer.tensor("b", &[1], 0, &[2; 4]).bytes()).unwrap();
    assert_eq!(file.tensor("b").unwrap().data, [2; 4]);
}

#[test]
fn files_on_disk_are_mapped_and_named() {
    let dir = std::env::temp_dir().join(format!("peerproof-gguf-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sample.gguf");
    std::fs::write(&path, sample().bytes()).unwrap();
    let file = Gguf::open(&path).unwrap();
    let expected = *blake3::hash(&sample().bytes()).as_bytes();
    assert_eq!((file.id(), model_id(&path).unwrap()), (expected, expected));
    let message = Gguf::open(dir.join("none.gguf")).map(drop).unwrap_err().to_string();
    assert!(message.contains("none.gguf"), "{message}");
    assert!(matches!(Gguf::open(&dir), Err(GgufError::Io { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(Gguf::open(&path).is_err());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_default_model_reads() {
    let file = Gguf::open(support::real_model()).unwrap();
    assert_eq!(file.str("general.architecture").unwrap(), "llama");
    assert_eq!(file.strings("tokenizer.ggml.tokens").unwrap().len(), 49_152);
    assert_eq!(file.tensors().len(), 272);
    let embedding = file.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.kind, embedding.dims), (GgmlType::Q8_0, &[576, 49_152][..]));
}

proptest! {
    #[test]
    fn mutated_bytes_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        keep in any::<bool>(),
    ) {
        let mut bytes = sample().bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let len = if keep { bytes.len() } else { cut.index(bytes.len()) };
        if let Ok(file) = Gguf::parse(&bytes[..len]) {
            touch_everything(&file);
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = Gguf::parse(noise.as_slice());
        let _ = Gguf::parse([&b"GGUF\x03\0\0\0"[..], &noise].concat());
    }
}

/// Whatever parsed can be read without a panic.
fn touch_everything(file: &Gguf) {
    for (key, _) in file.keys() {
        let _ = (file.u32(key), file.f32(key), file.str(key), file.bool(key));
        let _ = file.strings(key).map(|strings| strings.map(<[u8]>::len).sum::<usize>());
        let _ = file.i32s(key).map(Iterator::count);
        let _ = file.u32s(key).map(Iterator::count);
        let _ = file.f32s(key).map(Iterator::count);
    }
    for tensor in file.tensors() {
        assert_eq!(file.tensor(tensor.name).unwrap().data.len(), tensor.data.len());
    }
}
