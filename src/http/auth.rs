//! The bearer token. Only its SHA-256 is kept, and digests are compared in constant time.

use sha2::{Digest, Sha256};
use warp::http::{HeaderMap, header};

use super::problem::Problem;

/// Lets a request pass that carries the token, or any where none is configured.
pub fn check(headers: &HeaderMap, token_sha256: Option<&[u8; 32]>) -> Result<(), Problem> {
    let Some(wanted) = token_sha256 else { return Ok(()) };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => bearer(value.as_bytes()),
        _ => None,
    };
    match token {
        Some(token) if is_same(&Sha256::digest(token).into(), wanted) => Ok(()),
        _ => Err(Problem::unauthorized()),
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Looks at every byte, whatever the first ones are.
fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |bits, (a, b)| std::hint::black_box(bits | (a ^ b)));
    difference == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_one_right_token_passes() {
        let token_sha256 = Sha256::digest(b"s3cret").into();
        for (values, passes) in [
            (&["Bearer s3cret"][..], true),
            (&["bearer  s3cret "], true),
            (&[], false),
            (&["Bearer s3cre"], false),
            (&["Bearer s3cret2"], false),
            (&["Bearer "], false),
            (&["s3cret"], false),
            (&["Basic s3cret"], false),
            (&["Bearer s3cret", "Bearer s3cret"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(check(&headers, Some(&token_sha256)).is_ok(), passes, "{values:?}");
            assert!(check(&headers, None).is_ok(), "no token is configured");
        }
    }

    #[test]
    fn digests_that_differ_in_one_bit_are_not_the_same() {
        let digest: [u8; 32] = Sha256::digest(b"s3cret").into();
        for bit in 0..256 {
            let mut other = digest;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_same(&digest, &other));
        }
        assert!(is_same(&digest, &digest));
    }
}
