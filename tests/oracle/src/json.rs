//! A plain JSON parser (RFC 8259) that keeps what the contract asks about: repeated keys, number tokens as they were written, and the
//! depth of nesting.

use crate::Cause;

/// Objects and arrays inside each other, the outermost included.
pub const DEPTH_MAX: usize = 128;

/// A JSON value. A number stays the token that was read; an object keeps its members in order, repeated keys included.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Parses exactly one JSON text with optional white space around it.
pub fn parse(text: &str) -> Result<Json, Cause> {
    let mut parser = Parser { text, at: 0 };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at == text.len() { Ok(value) } else { Err(Cause::Json) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// `depth` is the number of containers around this value.
    fn value(&mut self, depth: usize) -> Result<Json, Cause> {
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(Cause::Depth),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Json, Cause> {
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
            if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(Cause::Json)
    }

    fn object(&mut self, depth: usize) -> Result<Json, Cause> {
        let mut members = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(Cause::Json);
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err(Cause::Json);
            }
            self.skip_space();
            members.push((key, self.value(depth)?));
            self.skip_space();
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.take(b',') {
                return Err(Cause::Json);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, Cause> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Json::Array(items));
            }
            if !self.take(b',') {
                return Err(Cause::Json);
            }
        }
    }

    fn number(&mut self) -> Result<Json, Cause> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Json::Number(self.text[start..self.at].to_owned()))
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Cause> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if start < self.at { Ok(()) } else { Err(Cause::Json) }
    }

    fn string(&mut self) -> Result<String, Cause> {
        let mut string = String::new();
        self.at += 1;
        loop {
            let plain = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            string.push_str(&self.text[plain..self.at]);
            if self.take(b'"') {
                return Ok(string);
            }
            if !self.take(b'\\') {
                return Err(Cause::Json); // a control character, or the end of the text
            }
            string.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Cause> {
        let letter = self.peek().ok_or(Cause::Json)?;
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(Cause::Json),
        })
    }

    fn unicode(&mut self) -> Result<char, Cause> {
        let first = self.four_hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(Cause::Utf8); // none for the second half of a pair
        }
        if !(self.take(b'\\') && self.take(b'u')) {
            return Err(Cause::Utf8);
        }
        let second = self.four_hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(Cause::Utf8);
        }
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(Cause::Utf8)
    }

    fn four_hex(&mut self) -> Result<u32, Cause> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Cause::Json)?;
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn repeated_keys_and_number_tokens_are_kept_as_written() {
        let parsed = parse(r#" {"a":1.0e+2,"a":[-0,true,false,null,{}],"\u0062":"\ud83c\udfac\n\/"} "#);
        let number = |token: &str| Json::Number(token.to_owned());
        let list = vec![number("-0"), Json::Bool(true), Json::Bool(false), Json::Null, Json::Object(vec![])];
        assert_eq!(
            parsed,
            Ok(Json::Object(vec![
                ("a".to_owned(), number("1.0e+2")),
                ("a".to_owned(), Json::Array(list)),
                ("b".to_owned(), Json::Text("🎬\n/".to_owned())),
            ]))
        );
    }

    #[test]
    fn nesting_of_128_is_read_and_of_129_is_not() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(128)).is_ok());
        assert_eq!(parse(&nested(129)), Err(Cause::Depth));
        assert_eq!(parse(&"{\"a\":".repeat(1_000_000)), Err(Cause::Depth));
    }

    /// serde_json reads the same grammar; it is asked to skip the values, so that its own limits on numbers do not count.
    #[test]
    fn the_grammar_agrees_with_serde_json_on_mutated_texts() {
        let good = r#"{"a":[1,-2.5e3,0.1E-7,"x\u00e9\\\"é🎬"],"b":{"c":null,"d":[true,false,{}]},"e":""} "#;
        let alphabet = b"{}[]\",:\\/eE+-.0123456789abntrufls \t\x01";
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..200_000 {
            let mut bytes = good.as_bytes().to_vec();
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes[at] = alphabet[rng.random_range(0..alphabet.len())],
                    _ => bytes.insert(at, alphabet[rng.random_range(0..alphabet.len())]),
                }
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                continue;
            };
            let ours = parse(text);
            if ours == Err(Cause::Utf8) {
                continue; // serde_json does not look at escapes that it skips
            }
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(text);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?}, {theirs:?}");
            *(if ours.is_ok() { &mut accepted } else { &mut refused }) += 1;
        }
        assert!(20_000 < accepted && 20_000 < refused, "{accepted} accepted, {refused} refused");
    }
}
