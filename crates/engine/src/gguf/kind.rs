//! The element formats of a tensor: numbers, names, block sizes.

/// How a tensor's elements are stored. The file knows each by a number;
/// formats missing here are refused by the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GgmlType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    BF16,
    /// 4 bits, a scale per 32.
    Q4_0,
    /// 4 bits, a scale and a minimum per 32.
    Q4_1,
    /// 5 bits, a scale per 32.
    Q5_0,
    /// 5 bits, a scale and a minimum per 32.
    Q5_1,
    /// 8 bits, a scale per 32.
    Q8_0,
    /// 2 bits, super-blocks of 256.
    Q2K,
    /// 3 bits, super-blocks of 256.
    Q3K,
    /// 4 bits, super-blocks of 256.
    Q4K,
    /// 5 bits, super-blocks of 256.
    Q5K,
    /// 6 bits, super-blocks of 256.
    Q6K,
    /// 4 bits that choose from 16 uneven integers, a scale per 32.
    Iq4Nl,
}

/// One row of the table of formats.
struct Row(GgmlType, u32, &'static str, u64, u64);

/// Format, its number in the file, name, elements a block, bytes a block.
const TABLE: [Row; 14] = [
    Row(GgmlType::F32, 0, "F32", 1, 4),
    Row(GgmlType::F16, 1, "F16", 1, 2),
    Row(GgmlType::BF16, 30, "BF16", 1, 2),
    Row(GgmlType::Q4_0, 2, "Q4_0", 32, 18),
    Row(GgmlType::Q4_1, 3, "Q4_1", 32, 20),
    Row(GgmlType::Q5_0, 6, "Q5_0", 32, 22),
    Row(GgmlType::Q5_1, 7, "Q5_1", 32, 24),
    Row(GgmlType::Q8_0, 8, "Q8_0", 32, 34),
    Row(GgmlType::Q2K, 10, "Q2_K", 256, 84),
    Row(GgmlType::Q3K, 11, "Q3_K", 256, 110),
    Row(GgmlType::Q4K, 12, "Q4_K", 256, 144),
    Row(GgmlType::Q5K, 13, "Q5_K", 256, 176),
    Row(GgmlType::Q6K, 14, "Q6_K", 256, 210),
    Row(GgmlType::Iq4Nl, 20, "IQ4_NL", 32, 18),
];

impl GgmlType {
    /// Every known format.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The format with that number in a file.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// Its number in a file.
    #[must_use]
    pub fn number(self) -> u32 {
        self.row().1
    }

    /// Its name, e.g. `Q4_1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// How many elements share a block.
    #[must_use]
    pub fn block_elements(self) -> u64 {
        self.row().3
    }

    /// How many bytes a block takes.
    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.row().4
    }

    fn row(self) -> &'static Row {
        // The declaration order of the enum is the order of the table; a test holds it.
        &TABLE[self as usize]
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_declaration_order() {
        for (at, kind) in GgmlType::all().enumerate() {
            assert_eq!(kind as usize, at);
            assert_eq!(GgmlType::from_number(kind.number()), Some(kind));
        }
        assert_eq!(GgmlType::from_number(4), None);
    }

    #[test]
    fn bytes_follow_from_the_fields_of_a_block() {
        // scale 2; scale+minimum 4; nibbles 16; fifth bits 4.
        for (kind, bytes) in [
            (GgmlType::Q4_0, 2 + 16),
            (GgmlType::Q4_1, 4 + 16),
            (GgmlType::Q5_0, 2 + 4 + 16),
            (GgmlType::Q5_1, 4 + 4 + 16),
            (GgmlType::Q8_0, 2 + 32),
            (GgmlType::Q2K, 256 / 4 + 256 / 16 + 4),
            (GgmlType::Q3K, 256 / 4 + 256 / 8 + 12 + 2),
            (GgmlType::Q4K, 256 / 2 + 12 + 4),
            (GgmlType::Q5K, 256 / 2 + 256 / 8 + 12 + 4),
            (GgmlType::Q6K, 256 / 2 + 256 / 4 + 256 / 16 + 2),
            (GgmlType::Iq4Nl, 2 + 16),
        ] {
            assert_eq!(kind.block_bytes(), bytes, "{kind}");
        }
    }
}
