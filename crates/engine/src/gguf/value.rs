//! Metadata values: scalars by value, strings and arrays as places in the file.

use super::Span;

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ValueType {
    /// 8 bits, unsigned.
    U8,
    /// 8 bits, signed.
    I8,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, signed.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, signed.
    I32,
    /// A 32-bit float.
    F32,
    /// A truth value.
    Bool,
    /// A string.
    Str,
    /// An array of one type.
    Array,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, signed.
    I64,
    /// A 64-bit float.
    F64,
}

impl ValueType {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        use ValueType::*;
        let all = [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64];
        all.get(usize::try_from(number).ok()?).copied()
    }

    /// The bytes of one value, where every value of the type has as many.
    pub(super) fn fixed_bytes(self) -> Option<u64> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            Str | Array => None,
        }
    }
}

/// One metadata value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Integer(ValueType, i128),
    /// As bits: the reader computes nothing with floats.
    F32(u32),
    F64,
    Bool(bool),
    Str(Span),
    Array(Array),
}

/// An array of strings or scalars, already walked once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Array {
    pub(super) element: ValueType,
    pub(super) len: usize,
    pub(super) span: Span,
}

impl Value {
    pub(super) fn kind(self) -> ValueType {
        match self {
            Self::Integer(kind, _) => kind,
            Self::F32(_) => ValueType::F32,
            Self::F64 => ValueType::F64,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
            Self::Array(_) => ValueType::Array,
        }
    }

    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Self::Integer(_, wide) => Some(wide),
            _ => None,
        }
    }

    /// For an error message.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Integer(kind, wide) => format!("{kind:?} {wide}"),
            Self::Array(array) => format!("an array of {} {:?}", array.len, array.element),
            other => format!("{:?}", other.kind()),
        }
    }
}
