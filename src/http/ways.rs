//! Ways from one page to another, within this house alone; pure.

use axum::http::uri::Uri;

/// A way that is longer is not gone back.
const WAY_BYTES_MAX: usize = 2048;
/// The form that asks for a token.
const FORM: &str = "/login";

/// A text as a part of an address.
pub(crate) fn in_address(text: &str) -> String {
    let mut shown = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            shown.push(char::from(byte));
        } else {
            shown.push_str(&format!("%{byte:02X}"));
        }
    }
    shown
}

/// Where to go on after the form, as somebody says it: a page of this house. Whatever else it is, the first screen.
pub(super) fn within(way: &str) -> &str {
    // Browsers take a backslash for a slash, pass over what is not printed, and take what begins with two slashes for a name.
    let plain = way.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') && way.len() <= WAY_BYTES_MAX;
    let path = way.split(['?', '#']).next().unwrap_or_default();
    let own = path.starts_with('/') && !path.starts_with("//") && !matches!(path, "/login" | "/logout");
    if plain && own { way } else { "/" }
}

/// The way to the form, and back to a page.
pub(super) fn to_form(back: &str) -> String {
    match within(back) {
        "/" => FORM.to_owned(),
        back => format!("{FORM}?then={}", in_address(back)),
    }
}

/// The page that a form was sent from, where that is one of this host's.
pub(super) fn sent_from(referer: Option<&str>, host: Option<&str>) -> String {
    let page = referer.and_then(|referer| referer.parse::<Uri>().ok());
    let own = page.filter(|page| page.authority().map(|authority| authority.as_str()) == host);
    own.and_then(|page| page.path_and_query().map(ToString::to_string)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_a_form_leads_to_no_other_house() {
        for own in ["/", "/jobs?q=a%20b&state=dead", "/types/press#purge", "/jobs/a%2Fb"] {
            assert_eq!(within(own), own);
        }
        let long = format!("/{}", "x".repeat(WAY_BYTES_MAX));
        for other in [
            "",
            "jobs",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "/a\r\nSet-Cookie: a=b",
            "/\u{e9}",
            "/login",
            "/login?then=/login",
            "/logout",
            &long,
        ] {
            assert_eq!(within(other), "/", "{other:?}");
        }
        assert_eq!((to_form("/"), to_form("//evil.example")), ("/login".to_owned(), "/login".to_owned()));
        assert_eq!(to_form("/jobs?q=a&b"), "/login?then=%2Fjobs%3Fq%3Da%26b");
    }

    #[test]
    fn a_page_that_a_form_was_sent_from_is_this_hosts() {
        let from = |referer| sent_from(Some(referer), Some("127.0.0.1:7420"));
        assert_eq!(from("http://127.0.0.1:7420/types/press?done=paused"), "/types/press?done=paused");
        for other in ["http://evil.example/types/press", "http://127.0.0.1:7421/a", "/types/press", "nonsense"] {
            assert_eq!(from(other), "", "{other}");
        }
        assert_eq!(sent_from(None, Some("a")), "");
    }

    #[test]
    fn what_stands_in_an_address_cannot_end_it() {
        assert_eq!(in_address("a b/?&=%\u{e9}#"), "a%20b%2F%3F%26%3D%25%C3%A9%23");
    }
}
