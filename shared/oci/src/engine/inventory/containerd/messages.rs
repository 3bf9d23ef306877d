//! As much of containerd's messages as tells of containers, tasks and images
//! (`containerd.services.*.v1`).

use std::collections::HashMap;

use prost::Message;

use crate::engine::containerd::Target;

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct VersionResponse {
    #[prost(string, tag = "1")]
    pub(in crate::engine) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine) containers: Vec<Listed>,
}

/// A container's record, but for what another one of its kind does not get: when it was changed.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Listed {
    #[prost(string, tag = "1")]
    pub(in crate::engine) id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(in crate::engine) labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub(in crate::engine) image: String,
    #[prost(message, optional, tag = "4")]
    pub(in crate::engine) runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    pub(in crate::engine) spec: Option<Any>,
    #[prost(string, tag = "6")]
    pub(in crate::engine) snapshotter: String,
    #[prost(string, tag = "7")]
    pub(in crate::engine) snapshot: String,
    #[prost(message, optional, tag = "8")]
    pub(in crate::engine) created_at: Option<Time>,
    #[prost(map = "string, message", tag = "10")]
    pub(in crate::engine) extensions: HashMap<String, Any>,
    #[prost(string, tag = "11")]
    pub(in crate::engine) sandbox: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Runtime {
    #[prost(string, tag = "1")]
    pub(in crate::engine) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::engine) options: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Any {
    #[prost(string, tag = "1")]
    pub(in crate::engine) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::engine) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Time {
    #[prost(int64, tag = "1")]
    pub(in crate::engine) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(in crate::engine) nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetContainerRequest {
    #[prost(string, tag = "1")]
    pub(in crate::engine) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine) container: Option<Listed>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetTaskRequest {
    #[prost(string, tag = "1")]
    pub(in crate::engine) container: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct GetTaskResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine) task: Option<Task>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct ListTasksResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine) tasks: Vec<Task>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Task {
    #[prost(string, tag = "1")]
    pub(in crate::engine) container: String,
    #[prost(string, tag = "2")]
    pub(in crate::engine) id: String,
    #[prost(uint32, tag = "3")]
    pub(in crate::engine) pid: u32,
    #[prost(int32, tag = "4")]
    pub(in crate::engine) status: i32,
    #[prost(string, tag = "6")]
    pub(in crate::engine) stdout: String,
    #[prost(string, tag = "7")]
    pub(in crate::engine) stderr: String,
    #[prost(bool, tag = "8")]
    pub(in crate::engine) terminal: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct Image {
    #[prost(string, tag = "1")]
    pub(in crate::engine) name: String,
    #[prost(message, optional, tag = "3")]
    pub(in crate::engine) target: Option<Target>,
    #[prost(message, optional, tag = "7")]
    pub(in crate::engine) created_at: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine) struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    pub(in crate::engine) filters: Vec<String>,
}
