//! `labgate front`: the whole configuration of a front proxy that asks this labgate about each request, from the labgate.toml at hand.
//!
//! ```text
//! labgate.toml ─▶ Plan ─▶ Setup (hosts, paths, applications, names of headers) ─▶ a template of the proxy's ─▶ standard output
//!                            └── what should be looked at ──────────────────────────────────────────────────▶ standard error
//! ```
//!
//! Each text is a template beside this file, to be read as what it is. What is written into them was checked by [`setup`] to be nothing but
//! names, numbers and plain paths. `tests/fronts` runs the real proxies on what is printed here.

mod layout;
mod setup;
mod templates;

use std::{path::PathBuf, process::ExitCode};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use self::setup::Setup;
use super::{Environment, MISTAKE, print, say, sketched};
use crate::config::Dialect;

/// Which proxy, and what labgate.toml doesn't say of it.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The proxy.
    #[arg(value_parser = proxies(), value_name = "NAME")]
    proxy: Dialect,
    /// Another form than the proxy's own file: for nginx `annotations` of ingress-nginx; for traefik `labels` of docker or the Kubernetes `crd`; for
    /// envoy `grpc` (asking over gRPC), `gateway` (Envoy Gateway), `istio` or `gateway-api`; for haproxy the `lua` script that its file loads.
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "config")]
    form: Form,
    /// The application, for routes that name no upstream.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where the proxy reaches labgate; `server.listen` unless said.
    #[arg(long, value_name = "HOST:PORT")]
    labgate: Option<String>,
    /// Where the proxy listens in the clear, because TLS ends before it or there is none; without it, the port of the public URL with TLS.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The certificate, if the proxy ends TLS at `--listen` or does not get one by itself.
    #[arg(long, value_name = "PATH", requires = "key")]
    certificate: Option<String>,
    /// The certificate's key.
    #[arg(long, value_name = "PATH", requires = "certificate")]
    key: Option<String>,
    /// Where haproxy finds the Lua script.
    #[arg(long, value_name = "PATH", default_value = "/etc/haproxy/labgate.lua")]
    lua: String,
}

/// Takes the name of a proxy.
fn proxies() -> impl TypedValueParser<Value = Dialect> {
    let named = |name: String| Dialect::ALL.into_iter().find(|proxy| proxy.name() == name);
    PossibleValuesParser::new(Dialect::ALL.map(Dialect::name))
        .map(move |name| named(name).expect("one of these names"))
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The proxy's own file.
    Config,
    /// Annotations of ingress-nginx.
    Annotations,
    /// Labels of docker containers.
    Labels,
    /// Traefik's kinds of Kubernetes objects.
    Crd,
    /// Envoy's file, asking over gRPC.
    Grpc,
    /// A `SecurityPolicy` of Envoy Gateway.
    Gateway,
    /// An extension provider of Istio and who asks it.
    Istio,
    /// A filter of an `HTTPRoute`.
    GatewayApi,
    /// The script that `HAProxy` asks with.
    Lua,
}

impl Form {
    /// What labgate is usually called where this form is used, if that is not this machine.
    fn usual_host(self) -> Option<&'static str> {
        match self {
            Self::Config | Self::Grpc | Self::Lua => None,
            Self::Labels => Some("labgate"),
            Self::Annotations | Self::Crd | Self::Gateway | Self::Istio | Self::GatewayApi => {
                Some("labgate.default.svc.cluster.local")
            },
        }
    }
}

/// Prints it; ends with 2 if labgate.toml can't be used or the proxy can't do what it says.
pub(super) fn run(
    arguments: &Arguments,
    path: Option<PathBuf>,
    env: &Environment,
) -> anyhow::Result<ExitCode> {
    let Some(template) = templates::of(arguments.proxy, arguments.form) else {
        let forms: Vec<_> = Form::value_variants()
            .iter()
            .filter(|form| templates::of(arguments.proxy, **form).is_some())
            .filter_map(ValueEnum::to_possible_value)
            .map(|form| form.get_name().to_owned())
            .collect();
        let (name, forms) = (arguments.proxy.name(), forms.join(", "));
        say(&format!("labgate: error: {name} has no such form; it has: {forms}\n"));
        return Ok(ExitCode::from(MISTAKE));
    };
    let plan = match sketched(path, env) {
        Ok(plan) => plan,
        Err(code) => return Ok(code),
    };
    let setup = match Setup::new(&plan, arguments) {
        Ok(setup) => setup,
        Err(reason) => {
            say(&format!("labgate: error: {reason}\n"));
            return Ok(ExitCode::from(MISTAKE));
        },
    };
    for hint in setup.hints(&plan, arguments) {
        say(&format!("labgate: note: {hint}\n"));
    }
    let text = template(&setup)?;
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
