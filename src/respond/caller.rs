//! What the caller is: a person who navigates, somebody who reads pages, or a program.

use http::{HeaderMap, Method, header};

/// Whether a person navigates with this request, so that a redirect to sign in makes sense.
///
/// GET or HEAD with `Sec-Fetch-Mode: navigate` or, without that field, an `Accept` that names `text/html`.
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    match headers.get("sec-fetch-mode") {
        Some(mode) => mode.as_bytes().eq_ignore_ascii_case(b"navigate"),
        None => prefers_html(headers),
    }
}

/// Whether a person sends a form with this request, so that a redirect would lose what is in it: like [`is_navigation`], for methods that change something.
pub fn is_form(method: &Method, headers: &HeaderMap) -> bool {
    !method.is_safe() && is_navigation(&Method::GET, headers)
}

/// Whether a page is the better answer: `Accept` names `text/html`, and JSON not with more weight (RFC 9110, section 12.5.1).
pub fn prefers_html(headers: &HeaderMap) -> bool {
    // The most weight that each is given by name, in thousandths; wildcards are no wish for a page.
    let (mut html, mut json) = (0, 0);
    let fields = headers.get_all(header::ACCEPT).iter();
    let ranges = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let is_any = |names: [&str; 2]| names.iter().any(|name| kind.eq_ignore_ascii_case(name));
        let most = match () {
            () if is_any(["text/html", "application/xhtml+xml"]) => &mut html,
            () if is_any(["application/json", "application/problem+json"]) => &mut json,
            () => continue,
        };
        *most = parts.find_map(quality).unwrap_or(1000).max(*most);
    }
    html > 0 && html >= json
}

/// The value of a `q` parameter in thousandths; one that is no number counts as zero.
fn quality(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let thousandths = || format!("{fraction:0<3}").parse::<u16>().ok();
    Some(match whole {
        "1" => 1000,
        "0" if fraction.len() <= 3 => thousandths().unwrap_or(0),
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_people_navigate() {
        type Fields = &'static [(&'static str, &'static str)];
        let cases: [(Method, Fields, bool); 14] = [
            (Method::GET, &[("accept", CHROMIUM), ("sec-fetch-mode", "navigate")], true),
            (Method::HEAD, &[("sec-fetch-mode", "navigate")], true),
            (Method::GET, &[("accept", CHROMIUM)], true),
            (Method::GET, &[("accept", "Text/HTML")], true),
            (Method::POST, &[("accept", CHROMIUM), ("sec-fetch-mode", "navigate")], false),
            (Method::GET, &[("accept", CHROMIUM), ("sec-fetch-mode", "cors")], false),
            (Method::GET, &[("accept", CHROMIUM), ("sec-fetch-mode", "no-cors")], false),
            (Method::GET, &[("accept", CHROMIUM), ("sec-fetch-mode", "websocket")], false),
            (Method::GET, &[("accept", "*/*")], false),
            (Method::GET, &[("accept", "text/*")], false),
            (Method::GET, &[("accept", "application/json")], false),
            (Method::GET, &[("accept", "text/event-stream")], false),
            (Method::GET, &[("accept", "text/html;q=0, */*")], false),
            (Method::GET, &[], false),
        ];
        for (method, fields, expected) in cases {
            assert_eq!(is_navigation(&method, &headers(fields)), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn only_people_send_forms() {
        let form = headers(&[("accept", CHROMIUM), ("sec-fetch-mode", "navigate")]);
        let script = headers(&[("accept", CHROMIUM), ("sec-fetch-mode", "cors")]);
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert!(is_form(&method, &form), "{method}");
            assert!(is_form(&method, &headers(&[("accept", CHROMIUM)])), "{method}");
            assert!(!is_form(&method, &script), "{method}");
            assert!(!is_form(&method, &headers(&[("accept", "*/*")])), "{method}");
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(!is_form(&method, &form), "{method}");
        }
    }

    #[test]
    fn a_page_is_for_those_who_ask_for_one() {
        let cases: [(&[&'static str], bool); 14] = [
            (&[CHROMIUM], true),
            (&["application/json, text/html"], true),
            (&["application/json;q=0.5, text/html;q=0.9"], true),
            (&["application/json, text/html;q=0.9"], false),
            (&["application/problem+json, text/html;q=0.999"], false),
            (&["text/html;q=0"], false),
            (&["text/html;q=0.000"], false),
            (&["text/html;q=0.001"], true),
            (&["text/html; level=1; Q=0"], false),
            (&["text/html;q=abc"], false),
            (&["text/html;q=99"], false),
            (&["application/xml", "text/html"], true),
            (&["text/htmlx, xtext/html"], false),
            (&[], false),
        ];
        for (accept, expected) in cases {
            let fields: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
            assert_eq!(prefers_html(&headers(&fields)), expected, "{accept:?}");
        }
    }
}
