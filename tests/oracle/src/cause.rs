//! Why a payload is malformed: the closed list that is safe as a metric label.

/// The cause of a `malformed` verdict. When several apply, any of them is a right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Bytes that are not UTF-8, or an escape that names half a surrogate pair.
    Utf8,
    /// Not one JSON text.
    Json,
    /// More than 128 objects and arrays inside each other, the outermost included.
    Depth,
    /// A known field is given twice at the top level.
    RepeatedField,
    /// A required field is absent.
    Missing,
    /// A value of the wrong kind.
    Type,
    /// A value of the right kind outside its bounds.
    Range,
    /// No bytes, or only white space.
    Empty,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Json => "json",
            Self::Depth => "depth",
            Self::RepeatedField => "repeated_field",
            Self::Missing => "missing",
            Self::Type => "type",
            Self::Range => "range",
            Self::Empty => "empty",
        }
    }
}
