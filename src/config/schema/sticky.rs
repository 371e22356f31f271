//! `[upstreams.NAME.sticky]`.

use std::path::PathBuf;
use std::time::Duration;

use super::name::{cookie_domain, is_token};
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape, parsed};
use crate::config::value::Node;
use crate::sticky::{Key, SameSite, Spec};

pub const STICKY: Shape = Shape {
    what: "`sticky`",
    keys: &[
        "cookie",
        "secret",
        "secret_file",
        "path",
        "domain",
        "max_age",
        "same_site",
        "secure",
        "http_only",
    ],
    later: &[],
};

const SAME_SITE: [(&str, SameSite); 3] = [
    ("lax", SameSite::Lax),
    ("strict", SameSite::Strict),
    ("none", SameSite::None),
];
/// Each costs a hash for a cookie that none of them has signed.
const MOST_SECRETS: usize = 8;

/// As written: where the secrets stand in a file, `spec` has none yet.
#[derive(Debug)]
pub struct Sticky {
    /// At the cookie's name.
    pub spec: At<Spec>,
    pub secret_file: Option<At<PathBuf>>,
}

pub fn read(cx: &Context<'_>, node: &Node) -> Option<Sticky> {
    let fields = Fields::of(cx, node, &STICKY)?;
    fields.require("cookie");
    let cookie = fields.parsed("cookie", "expected the name of a cookie, such as \"at\"", cookie_name);
    let secret_file = fields.text("secret_file");
    let secret_file = secret_file.map(|found| found.with(cx.resolve(found.value, found.span)));
    let keys = secrets(&fields);
    let same_site = fields.word("same_site", &SAME_SITE, &[]);
    let same_site = same_site.map_or(defaults::STICKY_SAME_SITE, |found| found.value);
    let cookie = cookie?;
    let spec = Spec {
        keys,
        path: fields
            .parsed("path", "expected a path such as \"/\"", cookie_path)
            .map_or_else(|| "/".into(), |found| found.value),
        domain: fields
            .parsed("domain", "expected a name such as \"shop.example\"", cookie_domain)
            .map(|found| found.value),
        max_age: fields.optional_duration("max_age", Duration::from_secs(1)),
        same_site,
        secure: fields.flag("secure"),
        http_only: fields.flag("http_only").unwrap_or(true),
        cookie: cookie.value.clone(),
    };
    check_browsers(&fields, &cookie, &spec);
    Some(Sticky {
        spec: cookie.with(spec),
        secret_file,
    })
}

/// A secret or several; where they stand in a file, none.
fn secrets(fields: &Fields<'_>) -> Vec<Key> {
    let cx = fields.cx;
    match (fields.get("secret"), fields.get("secret_file")) {
        (Some(_), Some(node)) => {
            let error = Diagnostic::error(node.span, "both `secret` and `secret_file` are set");
            cx.push(error.help("keep one of them"));
        }
        (None, None) => {
            let help = "make one with `openssl rand -hex 32`, keep it in the environment and write `secret = \"${STICKY_SECRET}\"`, \
                        or in a file and write `secret_file`: every instance needs the same one";
            let error = Diagnostic::error(fields.span, "`sticky` needs a secret to sign its cookies with");
            cx.push(
                error
                    .label("one made up at each start would lose every client at a restart")
                    .help(help),
            );
        }
        _ => {}
    }
    let expected = "expected a secret, such as `openssl rand -hex 32` makes";
    let read = |node| parsed(cx, node, expected, secret).map(|found| found.value);
    let Some(found) = fields.one_or_many("secret", read) else {
        return Vec::new();
    };
    match found.value.len() {
        0 if cx.errors() == 0 => cx.push(Diagnostic::error(found.span, "the list of secrets is empty")),
        0..=MOST_SECRETS => {}
        n => {
            let error = Diagnostic::error(found.span, format!("{n} secrets are more than anybody rotates"));
            cx.push(error.label(format!("expected at most {MOST_SECRETS}")));
        }
    }
    found.value
}

/// A secret of some strength.
pub fn secret(text: &str) -> Result<Key, String> {
    match text.len() {
        0 => Err("the secret is empty: anybody could sign cookies with it".into()),
        n if n < defaults::STICKY_SECRET => Err(format!(
            "the secret is {n} bytes long: at least {} are needed so that nobody guesses it",
            defaults::STICKY_SECRET
        )),
        _ => Ok(Key::new(text)),
    }
}

fn cookie_name(text: &str) -> Result<String, String> {
    match is_token(text) {
        true => Ok(text.into()),
        false => Err(format!("`{text}` is not the name of a cookie")),
    }
}

/// What browsers take for a path (RFC 6265 section 4.1.1).
fn cookie_path(text: &str) -> Result<String, String> {
    let is_valid = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    match is_valid {
        true => Ok(text.into()),
        false => Err(format!("`{text}` is not a path")),
    }
}

/// Browsers throw away cookies that contradict themselves (RFC 6265bis sections 4.1.2.7, 4.1.3 and 5.7).
fn check_browsers(fields: &Fields<'_>, cookie: &At<String>, spec: &Spec) {
    let cx = fields.cx;
    let is_secure = spec.secure == Some(true);
    if spec.same_site == SameSite::None
        && !is_secure
        && let Some(node) = fields.get("same_site")
    {
        let error = Diagnostic::error(
            node.span,
            "browsers throw away cookies with SameSite=None that are not Secure",
        );
        cx.push(error.help("set `secure = true`, which needs HTTPS, or take `same_site = \"lax\"`"));
    }
    let prefix = |prefix: &str| {
        let start = cookie.value.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let is_host = prefix("__Host-");
    if !is_host && !prefix("__Secure-") {
        return;
    }
    let mut needs = Vec::new();
    if !is_secure {
        needs.push("`secure = true`");
    }
    if is_host && spec.path != "/" {
        needs.push("`path = \"/\"`");
    }
    if is_host && fields.get("domain").is_some() {
        needs.push("no `domain`");
    }
    if !needs.is_empty() {
        let name = if is_host { "__Host-" } else { "__Secure-" };
        let message = format!("browsers throw away a cookie whose name begins with `{name}` here");
        cx.push(Diagnostic::error(cookie.span, message).label(format!("it needs {}", needs.join(" and "))));
    }
}
