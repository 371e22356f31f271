//! Structured fields, strictly (RFC 9651): a dictionary of which the members' kinds matter, as targeted cache control
//! (RFC 9213) and No-Vary-Search need it.

/// The value of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    Integer(i64),
    Boolean(bool),
    /// Without its quotes and escapes.
    String(String),
    Token(&'a str),
    /// Strings of an inner list; other items in it are left out.
    List(Vec<String>),
    /// A decimal, bytes, a date or a display string: nothing here takes one.
    Other,
}

/// The members of a dictionary, in their order; `None`: it is not one.
pub fn dictionary(text: &str) -> Option<Vec<(&str, Value<'_>)>> {
    let mut at = Cursor(text);
    let mut members: Vec<(&str, Value<'_>)> = Vec::new();
    at.skip(|b| b == b' ');
    while !at.0.is_empty() {
        let key = at.key()?;
        let value = match at.eat('=') {
            true => at.member()?,
            false => Value::Boolean(true),
        };
        at.parameters()?;
        // The last one counts (section 4.2.2).
        members.retain(|(name, _)| *name != key);
        members.push((key, value));
        at.skip(|b| matches!(b, b' ' | b'\t'));
        if at.0.is_empty() {
            return Some(members);
        }
        at.expect(',')?;
        at.skip(|b| matches!(b, b' ' | b'\t'));
        if at.0.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, while_true: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|b| !while_true(b)).unwrap_or(self.0.len());
        // What stops is looked for among ASCII: `end` is between characters.
        let (taken, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }

    fn skip(&mut self, while_true: impl Fn(u8) -> bool) {
        self.take(while_true);
    }

    fn eat(&mut self, c: char) -> bool {
        match self.0.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Option<()> {
        self.eat(c).then_some(())
    }

    fn key(&mut self) -> Option<&'a str> {
        let starts = self
            .0
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b == b'*');
        let key = self.take(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*'));
        starts.then_some(key)
    }

    fn member(&mut self) -> Option<Value<'a>> {
        if !self.eat('(') {
            return self.item();
        }
        let mut strings = Vec::new();
        loop {
            self.skip(|b| b == b' ');
            if self.eat(')') {
                return Some(Value::List(strings));
            }
            if let Value::String(text) = self.item()? {
                strings.push(text);
            }
            self.parameters()?;
            if !self.0.starts_with([' ', ')']) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(';') {
            self.skip(|b| b == b' ');
            self.key()?;
            if self.eat('=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item(&mut self) -> Option<Value<'a>> {
        match self.0.bytes().next()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Value::String),
            b'?' => {
                self.eat('?');
                match self.0.bytes().next()? {
                    b'0' => self.eat('0').then_some(Value::Boolean(false)),
                    b'1' => self.eat('1').then_some(Value::Boolean(true)),
                    _ => None,
                }
            }
            b':' => {
                self.eat(':');
                self.skip(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                self.expect(':')?;
                Some(Value::Other)
            }
            b'@' => {
                self.eat('@');
                match self.number()? {
                    Value::Integer(_) => Some(Value::Other),
                    _ => None,
                }
            }
            b'%' => {
                self.eat('%');
                self.string().map(|_| Value::Other)
            }
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => {
                let token = self.take(|b| {
                    b.is_ascii_alphanumeric()
                        || matches!(
                            b,
                            b'!' | b'#'
                                | b'$'
                                | b'%'
                                | b'&'
                                | b'\''
                                | b'*'
                                | b'+'
                                | b'-'
                                | b'.'
                                | b'^'
                                | b'_'
                                | b'`'
                                | b'|'
                                | b'~'
                                | b':'
                                | b'/'
                        )
                });
                Some(Value::Token(token))
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value<'a>> {
        let negative = self.eat('-');
        let digits = self.take(|b| b.is_ascii_digit());
        if self.eat('.') {
            let fraction = self.take(|b| b.is_ascii_digit());
            let valid = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return valid.then_some(Value::Other);
        }
        let valid = (1..=15).contains(&digits.len());
        let number: i64 = valid.then(|| digits.parse().ok()).flatten()?;
        Some(Value::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            let plain = self.take(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\');
            text.push_str(plain);
            if self.eat('"') {
                return Some(text);
            }
            self.expect('\\')?;
            match self.0.bytes().next()? {
                b'"' => text.push('"'),
                b'\\' => text.push('\\'),
                _ => return None,
            }
            self.0 = self.0.get(1..)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_in_order_the_last_of_a_name() {
        let found = dictionary("max-age=10, b, c=?0;x=1 ,\td=\"q\\\"\", e=tok/en, f=(\"a\" b \"c\";x), max-age=20");
        let strings = |list: &[&str]| Value::List(list.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(
            found.unwrap(),
            [
                ("b", Value::Boolean(true)),
                ("c", Value::Boolean(false)),
                ("d", Value::String("q\"".into())),
                ("e", Value::Token("tok/en")),
                ("f", strings(&["a", "c"])),
                ("max-age", Value::Integer(20)),
            ]
        );
        assert_eq!(dictionary(""), Some(vec![]));
        let others = dictionary("a=1.5, b=:aGk=:, c=@12, d=%\"x\", e=-5").unwrap();
        assert_eq!(others.iter().filter(|(_, v)| *v == Value::Other).count(), 4);
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "max-age=10, &&&",
            "MaX-aGe=1",
            "a=",
            "a=1,",
            ",a",
            "a =1",
            "a= 1",
            "a=1 b",
            "a=\"x",
            "a=\"\u{e9}\"",
            "a=(1",
            "a=(1,2)",
            "a=1.",
            "a=1234567890123456",
            "a=?2",
            "é=1",
            "a=1;B",
            "a=--1",
            "a='1'",
        ] {
            assert_eq!(dictionary(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".*", other in "[a-z0-9=,;\"()\\\\ ?:é-]{0,40}") {
            let _ = dictionary(&text);
            let _ = dictionary(&other);
        }
    }
}
