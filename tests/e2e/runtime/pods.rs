//! A node with containerd and nothing else, asked over containerd's own API and over that by which
//! kubelet asks: its containers and pods are told as they are, and what is not of their images
//! becomes an incident that says whose it is.

use serde_json::{Value, json};

use super::{
    Agent, NODE, Yard, are_here,
    containerd::{Containerd, PLAIN, Pod},
    fabric, image,
};

/// Something that is not of the image.
const DROP: &str = "cp /bin/ls /tmp/dropped; printf x >>/tmp/dropped; /tmp/dropped /";
const RULE: &str = "drift/added-executable";
const SLEEP: &[&str] = &["/bin/sleep", "1000"];

impl Yard<Containerd> {
    /// containerd with an image, which the fabric has looked at, and an agent that asks it by this
    /// key of its configuration; `None`, with a reason printed, where something is missing.
    async fn with_containerd(key: &str) -> Option<Self> {
        if !are_here(&["containerd", "ctr", "runc"]) {
            return None;
        }
        let fabric = fabric(1, "bpf").await?;
        let image_of = |name: &str, settings: Value| {
            fabric.push(image(&settings), &format!("runtime/{name}"), "1")
        };
        let app = image_of("app", json!({ "Cmd": ["app"] }));
        let pause = image_of("pause", json!({ "Entrypoint": SLEEP }));
        let containerd = Containerd::start(&pause).await;
        if !containerd.has_pods().await {
            return None;
        }
        let agent = Agent::start(&fabric, (key, &containerd.socket()), "bpf").await;
        fabric.verdict(&app).await;
        Some(Self {
            engine: containerd,
            agent,
            fabric,
            image: app,
        })
    }

    async fn incident(&self, container: &str) -> Value {
        self.until_detected(container, RULE, "tmp/dropped").await;
        let list = format!("/v1/incidents?container={container}");
        let list = self.fabric.get(&list).await.expect("a list");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list:#}");
        list["items"][0].clone()
    }

    /// The container of a pod is as it was asked for, and what is not of its image names all three.
    async fn check_pod(&self) -> Pod {
        let id_of_image = self.engine.pull(&self.image).await;
        let pod = self.engine.pod("web-0", "shop").await;
        // Kubelet names the image by what the runtime calls it.
        let id = self.engine.run(&pod, "web", &id_of_image, SLEEP).await;
        let known = self.until_known(&id).await;
        let expected = json!({
            "name": "web", "pod": "web-0", "namespace": "shop", "state": "running",
            "image": self.image, "exposed": true, "unauthorized": null,
            "ports": [{
                "host_address": "", "host_port": 8080, "container_port": 8080, "protocol": "tcp",
            }],
        });
        for (field, expected) in expected.as_object().expect("fields") {
            assert_eq!(&known[field], expected, "{field}: {known:#}");
        }
        assert!(known["started_at"].is_string(), "{known:#}");
        self.engine.exec(&id, DROP).await;
        let incident = self.incident(&id).await;
        assert_eq!(incident["container_name"], "web", "{incident:#}");
        assert_eq!(incident["pod"], "web-0", "{incident:#}");
        assert_eq!(incident["namespace"], "shop", "{incident:#}");
        assert_eq!(incident["image_name"], self.image.as_str(), "{incident:#}");
        pod
    }

    /// Waits until a container that does not run is told as this.
    async fn until_state(&self, container: &str, state: &str) {
        let path = format!("/v1/containers/{container}");
        self.fabric
            .until(&format!("a container that is {state}"), async || {
                let found = self.fabric.get(&path).await?;
                (found["state"] == state).then_some(())
            })
            .await;
    }

    /// What ran once and what never did are told apart, and so are images that something runs.
    async fn check_states(&self, pod: &Pod) {
        let latent = image(&json!({ "Cmd": ["latent"] }));
        let latent = self.fabric.push(latent, "runtime/latent", "1");
        self.engine.pull(&latent).await;
        let of = &self.image;
        let fails = ["/bin/sh", "-c", "exit 3"];
        let broken = self.engine.run(pod, "broken", of, &fails).await;
        let waiting = self.engine.create(pod, "waiting", of, SLEEP).await;
        self.until_state(&broken, "stopped").await;
        self.until_state(&waiting, "created").await;
        let node = self
            .fabric
            .until("the image that nothing runs", async || {
                let node = self.fabric.get(&format!("/v1/nodes/{NODE}")).await?;
                on_disk(&node, &latent).is_some().then_some(node)
            })
            .await;
        let is_active = |name: &str| on_disk(&node, name).expect("it is there")["active"].clone();
        assert_eq!(is_active(&latent), false, "{node:#}");
        assert_eq!(is_active(&self.image), true, "{node:#}");
    }
}

/// An image on a node's disk.
fn on_disk<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    let mut images = node["images_on_disk"].as_array()?.iter();
    images.find(|image| {
        let mut names = image["names"].as_array().into_iter().flatten();
        names.any(|own| own == name)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn with_containerd_alone_what_is_not_of_an_image_becomes_an_incident() {
    let Some(yard) = Yard::with_containerd("containerd").await else {
        return;
    };
    let name = format!("plain-{}", std::process::id());
    let ctr = |arguments: &[&str]| yard.engine.ctr(PLAIN, arguments);
    ctr(&["images", "pull", "--plain-http", &yard.image]);
    let run = ["run", "--detach", "--null-io", &yard.image, &name];
    ctr(&[&run[..], SLEEP].concat());
    yard.until_known(&name).await;
    let exec = ["tasks", "exec", "--exec-id", "drop", &name];
    ctr(&[&exec[..], &["/bin/sh", "-c", DROP]].concat());
    let incident = yard.incident(&name).await;
    assert_eq!(incident["container_name"], name.as_str(), "{incident:#}");
    assert_eq!(incident["pod"], Value::Null, "{incident:#}");
    let pod = yard.check_pod().await;
    yard.check_states(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_interface_of_kubelet_what_is_not_of_an_image_becomes_an_incident() {
    let Some(yard) = Yard::with_containerd("cri").await else {
        return;
    };
    let pod = yard.check_pod().await;
    yard.check_states(&pod).await;
}
