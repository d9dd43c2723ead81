//! Every limit of the wire, in one place.
//!
//! A limit binds both sides: nothing above it is sent, and nothing above it is
//! accepted. Numbers are inclusive.

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        /// Name and value of every limit, in the order of declaration.
        pub const ALL: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
    };
}

limits! {
    /// A frame on a stream, without its length prefix; also any message on its own.
    MAX_FRAME_BYTES: usize = 1 << 20;
    /// The payload of a signed offer.
    MAX_OFFER_BYTES: usize = 600 << 10;
    /// The payload of a signed receipt.
    MAX_RECEIPT_BYTES: usize = 600;
    /// The payload of a signed verdict.
    MAX_VERDICT_BYTES: usize = 1024;
    /// The payload of a signed announcement.
    MAX_ANNOUNCEMENT_BYTES: usize = 64 << 10;

    /// Text of a prompt; for a chat, all roles and contents together.
    MAX_PROMPT_BYTES: usize = 512 << 10;
    /// Messages of a chat.
    MAX_CHAT_MESSAGES: usize = 1024;
    /// Name of a chat role.
    MAX_ROLE_BYTES: usize = 32;
    /// Token ids of a prompt.
    MAX_PROMPT_TOKENS: u32 = 1 << 17;
    /// Token ids of an answer.
    MAX_ANSWER_TOKENS: u32 = 1 << 16;
    /// Token ids of an answer of the statistical class.
    MAX_STATISTICAL_TOKENS: u32 = 2048;
    /// Highest token id.
    MAX_TOKEN_ID: u32 = (1 << 24) - 1;
    /// Stop strings of an offer.
    MAX_STOP_STRINGS: usize = 16;
    /// One stop string.
    MAX_STOP_STRING_BYTES: usize = 256;
    /// Highest temperature, 128.0 with 16 fractional bits.
    MAX_TEMPERATURE_Q16: u32 = 128 << 16;
    /// Highest top-k.
    MAX_TOP_K: u32 = 1 << 24;
    /// Highest top-p, 1.0 with 16 fractional bits.
    MAX_TOP_P_Q16: u32 = 1 << 16;
    /// Highest min-p, 1.0 with 16 fractional bits.
    MAX_MIN_P_Q16: u32 = 1 << 16;
    /// Highest repetition penalty, 16.0 with 16 fractional bits.
    MAX_REPETITION_Q16: u32 = 16 << 16;
    /// Largest presence or frequency penalty, 2.0 with 16 fractional bits, on either side of zero.
    MAX_PENALTY_Q16: u32 = 2 << 16;
    /// Tokens with a bias of their own.
    MAX_LOGIT_BIASES: usize = 300;
    /// Largest bias, 100.0 with 16 fractional bits, on either side of zero.
    MAX_LOGIT_BIAS_Q16: u32 = 100 << 16;
    /// Text of a constraint: a schema or an expression.
    MAX_CONSTRAINT_BYTES: usize = 64 << 10;
    /// Name of the rules that make masks of a constraint.
    MAX_CONSTRAINT_RULES_BYTES: usize = 64;
    /// Likeliest tokens reported at each place of an answer.
    MAX_TOP_LOGPROBS: usize = 20;
    /// Spelling of a token beside its probability; the rest of a longer one is cut off.
    MAX_SPELLING_BYTES: usize = 128;
    /// Longest deadline of a job: one hour.
    MAX_DEADLINE_MS: u64 = 3_600_000;

    /// Tokens in one frame of an answer.
    MAX_TOKENS_PER_FRAME: usize = 1024;
    /// Tokens in one frame whose probabilities are reported.
    MAX_LOGPROBS_PER_FRAME: usize = 256;
    /// Text in one frame of an answer.
    MAX_TEXT_PER_FRAME_BYTES: usize = 64 << 10;
    /// Leaves of a transcript: every position but the last answer token's, and the closing leaf.
    MAX_LEAVES: u32 = MAX_PROMPT_TOKENS + MAX_ANSWER_TOKENS;
    /// Hashes of an inclusion path, in a transcript or a log.
    MAX_PATH_HASHES: usize = 64;
    /// Positions that a challenge names beside the drawn ones.
    MAX_CHALLENGE_POSITIONS: usize = 64;
    /// Leaves opened in one reply.
    MAX_OPENINGS: usize = 128;
    /// Leaf hashes in one reply; longer transcripts are opened by position only.
    MAX_LEAF_HASHES: usize = 16 << 10;
    /// A signed log checkpoint with its cosignatures.
    MAX_CHECKPOINT_BYTES: usize = 8 << 10;
    /// What a failure says to a person.
    MAX_FAILURE_MESSAGE_BYTES: usize = 512;
    /// Longest advice to wait: one hour.
    MAX_RETRY_AFTER_MS: u64 = 3_600_000;

    /// Layers of a model.
    MAX_LAYERS: usize = 1024;
    /// Cells opened for one request.
    MAX_CELLS: usize = 64;
    /// Bytes of the rows around a cell, with the groups they lie in; and of a state.
    MAX_CELL_ROWS_BYTES: usize = 520 << 10;
    /// Pages of one layer's keys and values.
    MAX_KV_PAGES: usize = MAX_LEAVES as usize / 64;
    /// One page of them.
    MAX_KV_PAGE_BYTES: usize = 16 << 20;
    /// The products of a cell's matrices.
    MAX_CELL_PRODUCTS_BYTES: usize = 32 << 20;
    /// One opening of a cell.
    MAX_CELL_BYTES: usize = 64 << 20;
    /// A part of an opening in one frame.
    MAX_CELLS_PART_BYTES: usize = 512 << 10;
    /// Stretches of a model file in a fraud proof.
    MAX_WEIGHT_RANGES: usize = 512;
    /// A fraud proof.
    MAX_FRAUD_PROOF_BYTES: usize = 128 << 20;
    /// The same as a file, with the line that names its format.
    MAX_FRAUD_FILE_BYTES: usize = (128 << 20) + 64;

    /// The payload of a signed trace.
    MAX_TRACE_BYTES: usize = 8 << 10;
    /// Tensors that a trace places in the model file.
    MAX_TRACED_TENSORS: usize = 32;
    /// Rows of a trace.
    MAX_TRACE_ROWS: usize = 32;
    /// Cosines and sines in a trace.
    MAX_ANGLES_BYTES: usize = 1 << 10;
    /// Exponents in a trace, on either side of zero.
    MAX_TRACE_EXPONENT: u32 = 1 << 17;
    /// What stands for the chunks of a row, 8 bytes each.
    MAX_ROW_CHUNKS_BYTES: usize = 512 << 10;
    /// A chunk of a row, with the one before it.
    MAX_ROW_CHUNK_BYTES: usize = 2 << 10;
    /// Stretches opened in the proof of a dispute.
    MAX_STRETCHES: usize = 64;
    /// The proof of a dispute.
    MAX_DISPUTE_PROOF_BYTES: usize = 64 << 10;

    /// Models that an announcement lists as served, and as audited.
    MAX_ANNOUNCED_MODELS: usize = 64;
    /// Name of a model.
    MAX_MODEL_NAME_BYTES: usize = 128;
    /// Name of an architecture or of a quantisation.
    MAX_MODEL_KIND_BYTES: usize = 32;
    /// The unit of an operator's terms.
    MAX_PRICE_UNIT_BYTES: usize = 32;
    /// Name and version of a node's software.
    MAX_SOFTWARE_BYTES: usize = 64;

    /// A model file of which pieces are asked for: 16 TiB.
    MAX_FILE_BYTES: u64 = 1 << 44;
    /// Bytes of a model file in one reply: 60 groups of 16 KiB.
    MAX_RANGE_BYTES: usize = 960 << 10;
    /// Hashes beside them.
    MAX_RANGE_HASHES: usize = 128;

    /// Path of a piece of a log.
    MAX_LOG_PATH_BYTES: usize = 64;
    /// A piece of a log: a tile, an entry bundle, or a note.
    MAX_LOG_PIECE_BYTES: usize = 16 << 10;
    /// A request to cosign a checkpoint: its note, a path, and the line before them.
    MAX_ADD_CHECKPOINT_BYTES: usize = (16 << 10) + 63 * 48 + 64;

    /// A value beside a mismatch: a digest, a token, a number.
    MAX_MISMATCH_VALUE_BYTES: usize = 64;
    /// Numbers that the stakes of a test are: two each.
    MAX_STAKE_NUMBERS: usize = 20;
    /// Verdicts attached to one piece of evidence.
    MAX_VERDICTS: usize = 16;
    /// Why an observation was kept.
    MAX_REASON_BYTES: usize = 1024;
    /// One piece of evidence.
    MAX_EVIDENCE_BYTES: usize = (1 << 20) - 64;
}
