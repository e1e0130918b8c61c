//! JSON that comes in: what is wrong with it is said in one sentence.

use serde::Deserialize;
use serde_json::error::Category;

use crate::Problem;

/// Reads a JSON body. Types that refuse unknown fields have them named.
///
/// # Errors
/// 400 that says where the body is not JSON, or what doesn't fit.
pub fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::invalid("the body is empty, it should be JSON"));
    }
    let text = str::from_utf8(body).map_err(|error| {
        Problem::invalid(format!("the body is not UTF-8: the byte at offset {} is not", error.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => Problem::invalid(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => Problem::invalid(format!("the body is not JSON: {error}")),
    })
}

/// Reads a JSON body that has to be an object. Types made with `derive` would also take an array of their fields'
/// values, which nobody means.
///
/// # Errors
/// As [`from_json`], and 400 where it is an array.
pub fn from_json_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("it should be an object, not an array"));
    }
    from_json(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_values_is_no_object() {
        assert!(from_json::<Thing>(b"[1]").is_ok());
        assert_eq!(from_json_object::<Thing>(b" [1]").expect_err("refused").status(), 400);
        assert!(from_json_object::<Thing>(b"\n{\"size\":1}").is_ok());
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code, reason = "only whether it is read is asked")]
        size: u32,
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (body, sentence) in [
            (&b" \n"[..], "the body is empty, it should be JSON"),
            (b"size=1", "the body is not JSON: expected value at line 1 column 1"),
            (b"{\n\"size\":", "the body is not JSON: EOF while parsing a value at line 2 column 7"),
            (b"{\"size\":1,\"seize\":2}", "unknown field `seize`, expected `size` at line 1 column 17"),
            (b"{}", "missing field `size` at line 1 column 2"),
            (b"{\"size\":\"1\"}", "invalid type: string \"1\", expected u32 at line 1 column 11"),
            (b"{\"size\":\xff}", "the body is not UTF-8: the byte at offset 8 is not"),
            (b"{\"size\":1} x", "the body is not JSON: trailing characters at line 1 column 12"),
        ] {
            assert_eq!(from_json::<Thing>(body).expect_err(sentence).detail(), sentence);
        }
        assert!(from_json::<Thing>(b" {\"size\":1}\r\n").is_ok());
    }
}
