//! A browser as far as sign-ins need one: cookies by host, path and scheme, redirects, forms, and GitLab's page that redirects by script.

use std::net::SocketAddr;

use http::{Method, Request};
use labgate::demo::gitlab::script_redirect;
use url::Url;

use super::client::{Answer, send};

/// Navigates, keeps cookies, and follows whatever it is sent to.
#[derive(Clone, Debug)]
pub struct Browser {
    labgate: SocketAddr,
    gitlabs: Vec<(String, SocketAddr)>,
    cookies: Vec<Cookie>,
    loses: Vec<String>,
    /// Every URL that was asked for, in order.
    pub visited: Vec<Url>,
}

/// One cookie in the jar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    host: String,
    path: String,
    secure: bool,
    name: String,
    value: String,
}

/// Where a navigation ended.
#[derive(Debug, Clone)]
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub answer: Answer,
}

impl Page {
    pub fn text(&self) -> String {
        self.answer.text()
    }
}

impl Browser {
    /// `gitlab` is known by its address and by `external_url`.
    pub fn new(labgate: SocketAddr, gitlab: SocketAddr, external_url: &str) -> Self {
        let own = Self {
            labgate,
            gitlabs: Vec::new(),
            cookies: Vec::new(),
            loses: Vec::new(),
            visited: Vec::new(),
        };
        own.also_knows(gitlab, external_url)
    }

    /// The same, to which the host of `external_url` is the GitLab at `gitlab`.
    pub fn also_knows(mut self, gitlab: SocketAddr, external_url: &str) -> Self {
        let origin = Url::parse(external_url).expect("a URL").origin().ascii_serialization();
        self.gitlabs.push((origin, gitlab));
        self
    }

    /// Talks to another labgate from now on, as behind a load balancer.
    pub fn point_at(&mut self, labgate: SocketAddr) {
        self.labgate = labgate;
    }

    /// The value of a cookie that some host of labgate's set.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|cookie| cookie.name == name).map(|cookie| cookie.value.as_str())
    }

    /// The value of a cookie that `host` set.
    pub fn cookie_of(&self, host: &str, name: &str) -> Option<&str> {
        let mut own = self.cookies.iter().filter(|cookie| cookie.host == host);
        own.find(|cookie| cookie.name == name).map(|cookie| cookie.value.as_str())
    }

    /// The names of the cookies that `host` set.
    pub fn names_of(&self, host: &str) -> Vec<&str> {
        let own = self.cookies.iter().filter(|cookie| cookie.host == host);
        own.map(|cookie| cookie.name.as_str()).collect()
    }

    /// Forgets all cookies of `host`.
    pub fn forget(&mut self, host: &str) {
        self.cookies.retain(|cookie| cookie.host != host);
    }

    /// From now on loses each cookie whose name begins with `start`, as if it were blocked.
    pub fn lose(&mut self, start: &str) {
        self.loses.push(start.into());
    }

    /// The session as a `Cookie` field says it.
    pub fn session(&self) -> String {
        format!("__Host-labgate={}", self.cookie("__Host-labgate").expect("a session"))
    }

    /// The names of all cookies but GitLab's own, and the one that counts rounds of sign-ins for a minute.
    pub fn cookie_names(&self) -> Vec<&str> {
        let other = |cookie: &&Cookie| {
            cookie.name == "_gitlab_session" || cookie.name.ends_with("-attempt-landed")
        };
        let own = self.cookies.iter().filter(|cookie| !other(cookie));
        own.map(|cookie| cookie.name.as_str()).collect()
    }

    /// Puts a cookie for `host` into the jar, or replaces it.
    pub fn set_cookie(&mut self, host: &str, name: &str, value: &str) {
        self.cookies.retain(|cookie| !(cookie.host == host && cookie.name == name));
        self.cookies.push(Cookie {
            host: host.into(),
            path: "/".into(),
            secure: false,
            name: name.into(),
            value: value.into(),
        });
    }

    /// Forgets the sign-in at GitLab, as after a restart of the browser.
    pub fn forget_gitlab(&mut self) {
        self.cookies.retain(|cookie| cookie.name != "_gitlab_session");
    }

    /// One request without following anything; `path` may be an absolute URL.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let url = absolute(path);
        self.fetch(method, &url, headers, body).await
    }

    /// A navigation that is not followed.
    pub async fn navigate(&mut self, path: &str) -> Answer {
        self.request(Method::GET, path, &NAVIGATION, "").await
    }

    /// A `fetch` of a script.
    pub async fn xhr(&mut self, path: &str) -> Answer {
        let headers =
            [("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin"), ("accept", "*/*")];
        self.request(Method::GET, path, &headers, "").await
    }

    /// A form of a page of labgate's own is posted.
    pub async fn post(&mut self, path: &str, body: &str) -> Answer {
        let headers = [
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-site", "same-origin"),
            ("accept", "text/html"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        self.request(Method::POST, path, &headers, body).await
    }

    /// Begins a sign-in that leads to `rd`; returns the URL of GitLab's authorize page.
    pub async fn begin(&mut self, rd: &str) -> String {
        let rd: String = url::form_urlencoded::byte_serialize(rd.as_bytes()).collect();
        let answer = self.navigate(&format!("/oauth2/start?rd={rd}")).await;
        assert_eq!(answer.status, 302, "{}", answer.text());
        answer.header("location").to_owned()
    }

    /// A navigation that follows redirects, GitLab's script included, until a page stays.
    pub async fn open(&mut self, path: &str) -> Page {
        let url = absolute(path);
        self.follow(Method::GET, url, String::new()).await
    }

    /// Opens `path` and does what it takes to be there as `user`.
    pub async fn sign_in(&mut self, path: &str, user: &str) -> Page {
        let page = self.open(path).await;
        self.finish_sign_in(page, user).await
    }

    /// Chooses `user` and consents, if GitLab asks.
    pub async fn finish_sign_in(&mut self, mut page: Page, user: &str) -> Page {
        for _ in 0..4 {
            let Some(form) = form(&page.text(), user).filter(|_| self.is_gitlab(&page.url)) else {
                return page;
            };
            let url = page.url.join(&form.action).expect("a form's action");
            page = self.follow(Method::POST, url, form.body).await;
        }
        panic!("GitLab asks and asks: {}", page.text())
    }

    fn gitlab(&self, url: &Url) -> Option<SocketAddr> {
        let origin = url.origin().ascii_serialization();
        self.gitlabs.iter().find(|(known, _)| *known == origin).map(|(_, addr)| *addr)
    }

    fn is_gitlab(&self, url: &Url) -> bool {
        self.gitlab(url).is_some()
    }

    async fn follow(&mut self, mut method: Method, mut url: Url, mut body: String) -> Page {
        // As many as browsers follow.
        for _ in 0..20 {
            let mut headers = NAVIGATION.to_vec();
            let origin = url.origin().ascii_serialization();
            if method == Method::POST {
                headers.push(("content-type", "application/x-www-form-urlencoded"));
                headers.push(("origin", &origin));
            }
            let answer = self.fetch(method.clone(), &url, &headers, &body).await;
            let next = match answer.status.as_u16() {
                301..=303 | 307 | 308 => Some(answer.header("location").to_owned()),
                200 if self.is_gitlab(&url) => script_redirect(&answer.text()),
                _ => None,
            };
            let Some(next) = next else {
                return Page { url, status: answer.status.as_u16(), answer };
            };
            url = url.join(&next).expect("a location");
            method = Method::GET;
            body = String::new();
        }
        panic!("too many redirects: {:?}", self.visited)
    }

    async fn fetch(
        &mut self,
        method: Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.visited.push(url.clone());
        let host = url.host_str().expect("a host").to_owned();
        let target = url.as_str().splitn(4, '/').nth(3).unwrap_or_default();
        let target = format!("/{}", target.split('#').next().unwrap_or_default());
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let mut request = Request::builder().method(method).uri(target).header("host", authority);
        let cookies = self.matching(url);
        if !cookies.is_empty() {
            request = request.header("cookie", cookies);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let addr = self.gitlab(url).unwrap_or(self.labgate);
        let answer = send(addr, request.body(body.to_owned()).expect("a request")).await;
        for cookie in answer.cookies() {
            self.keep(&host, cookie);
        }
        answer
    }

    fn matching(&self, url: &Url) -> String {
        let fits = |cookie: &&Cookie| {
            let path = cookie.path.trim_end_matches('/');
            let below = url.path().strip_prefix(path);
            Some(cookie.host.as_str()) == url.host_str()
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && (!cookie.secure || url.scheme() == "https")
        };
        let pairs = self.cookies.iter().filter(fits);
        pairs
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn keep(&mut self, host: &str, set_cookie: &str) {
        assert!(set_cookie.len() <= 4096, "browsers drop this: {set_cookie}");
        let mut parts = set_cookie.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie");
        let mut cookie = Cookie {
            host: host.into(),
            path: "/".into(),
            secure: false,
            name: name.into(),
            value: value.into(),
        };
        let mut over = false;
        for attribute in parts {
            match attribute.split_once('=').unwrap_or((attribute, "")) {
                ("Path", path) => cookie.path = path.into(),
                ("Secure", _) => cookie.secure = true,
                ("Max-Age", age) => over = age == "0",
                _ => {},
            }
        }
        if name.starts_with("__Host-") {
            let whole = cookie.secure && cookie.path == "/" && !set_cookie.contains("Domain");
            assert!(whole, "browsers drop this: {set_cookie}");
        }
        let lost = self.loses.iter().any(|start| name.starts_with(start));
        self.cookies.retain(|old| {
            !(old.host == cookie.host && old.path == cookie.path && old.name == cookie.name)
        });
        if !over && !lost {
            self.cookies.push(cookie);
        }
    }
}

fn absolute(path: &str) -> Url {
    let base = Url::parse(&format!("https://{}", super::HOST)).expect("a URL");
    // Joined by hand: a path must go out byte for byte.
    match path.starts_with('/') {
        true => Url::parse(&format!("{}{path}", base.as_str().trim_end_matches('/'))),
        false => Url::parse(path),
    }
    .expect("a URL")
}

struct Form {
    action: String,
    body: String,
}

/// The form on one of GitLab's pages that has a button for `user`, or that authorizes.
fn form(html: &str, user: &str) -> Option<Form> {
    html.split("<form").skip(1).filter_map(|form| form.split("</form>").next()).find_map(|form| {
        let wanted = button(form, user).or_else(|| button(form, "Authorize"))?;
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        for input in tags(form, "input") {
            body.append_pair(&attribute(input, "name")?, &attribute(input, "value")?);
        }
        for (name, value) in wanted {
            body.append_pair(&name, &value);
        }
        Some(Form { action: attribute(form, "action").unwrap_or_default(), body: body.finish() })
    })
}

/// Name and value of a button labelled `label`; an empty list if it has none.
fn button(form: &str, label: &str) -> Option<Vec<(String, String)>> {
    let found = form.split("<button").skip(1).find(|button| {
        let text = button.split_once('>').map_or("", |(_, text)| text);
        let text = text.split("</button>").next().unwrap_or_default();
        let plain: String =
            text.split('<').filter_map(|part| part.split('>').next_back()).collect();
        plain.trim().starts_with(label)
    })?;
    let pair = attribute(found, "name").zip(attribute(found, "value"));
    Some(pair.into_iter().collect())
}

fn tags<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    html.split('<').filter(move |tag| tag.starts_with(name))
}

/// An attribute of the first tag in `html`, with the entities that askama writes undone.
fn attribute(html: &str, name: &str) -> Option<String> {
    let tag = html.split('>').next()?;
    let value = tag.split_once(&format!(" {name}=\""))?.1.split('"').next()?;
    let plain = [
        ("&#38;", "&"),
        ("&amp;", "&"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&#62;", ">"),
    ];
    Some(plain.iter().fold(value.to_owned(), |text, (entity, sign)| text.replace(entity, sign)))
}

const NAVIGATION: [(&str, &str); 3] =
    [("sec-fetch-mode", "navigate"), ("sec-fetch-site", "none"), ("accept", "text/html,*/*;q=0.8")];
