//! Those fields of Envoy's messages that are read or written here (`envoy.service.auth.v3` and what it refers to), by their numbers.
//!
//! Written by hand: a message that is read skips what it doesn't know, and one that is written leaves out what it doesn't say. Whatever a stranger can
//! shape is read as bytes, also where Envoy calls it a string: text that is none must make a refusal, not an unreadable message, which Envoy might be
//! configured to let pass. A map is, on the wire, a list of pairs.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

/// `CheckRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::gate) struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) attributes: Option<AttributeContext>,
}

/// `AttributeContext`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    pub(super) source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub(super) request: Option<RequestAttributes>,
    #[prost(message, repeated, tag = "10")]
    pub(super) context_extensions: Vec<Field>,
}

/// `AttributeContext.Peer`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Peer {
    #[prost(message, optional, tag = "1")]
    pub(super) address: Option<Address>,
}

/// `Address`; a pipe has no socket address.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Address {
    #[prost(message, optional, tag = "1")]
    pub(super) socket_address: Option<SocketAddress>,
}

/// `SocketAddress`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SocketAddress {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) address: Bytes,
}

/// `AttributeContext.Request`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestAttributes {
    #[prost(message, optional, tag = "2")]
    pub(super) http: Option<HttpAttributes>,
}

/// `AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpAttributes {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) method: Bytes,
    /// With the values of one name folded.
    #[prost(message, repeated, tag = "3")]
    pub(super) headers: Vec<Field>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) path: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) host: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) scheme: Bytes,
    #[prost(bytes = "bytes", tag = "10")]
    pub(super) protocol: Bytes,
    /// Instead of `headers`, if Envoy is to send them as they came.
    #[prost(message, optional, tag = "13")]
    pub(super) header_map: Option<HeaderFields>,
}

/// `HeaderMap`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderFields {
    #[prost(message, repeated, tag = "1")]
    pub(super) headers: Vec<Field>,
}

/// `HeaderValue`, or an entry of a map.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Field {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) raw_value: Bytes,
}

/// `CheckResponse`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::gate) struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    pub(super) denied_response: Option<DeniedResponse>,
    #[prost(message, optional, tag = "3")]
    pub(super) ok_response: Option<OkResponse>,
    #[prost(message, optional, tag = "4")]
    pub(super) dynamic_metadata: Option<Metadata>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// `DeniedHttpResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeniedResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    pub(super) body: String,
}

/// `HttpStatus`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
}

/// `OkHttpResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OkResponse {
    /// For the application.
    #[prost(message, repeated, tag = "2")]
    pub(super) headers: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "5")]
    pub(super) headers_to_remove: Vec<String>,
    /// For the browser.
    #[prost(message, repeated, tag = "6")]
    pub(super) response_headers_to_add: Vec<HeaderOption>,
}

/// `HeaderValueOption`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<HeaderText>,
    #[prost(enumeration = "AppendAction", tag = "3")]
    pub(super) append_action: i32,
    #[prost(bool, tag = "4")]
    pub(super) keep_empty_value: bool,
}

/// `HeaderValue`, as it is written: Envoy reads no raw values here.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderText {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// `HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum AppendAction {
    /// Beside what is there.
    Append = 0,
    /// In place of what is there.
    Overwrite = 2,
}

/// `google.protobuf.Struct`, of texts alone.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) fields: BTreeMap<String, Text>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Text {
    #[prost(string, optional, tag = "3")]
    pub(super) string_value: Option<String>,
}
