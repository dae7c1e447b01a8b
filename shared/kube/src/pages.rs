//! Lists objects page by page, so that one page of bounded size is in memory at a time.

use std::time::Duration;

use kube::{Client, Error};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::request::{MAX_RESPONSE_BYTES, get_text};

/// `metav1.List`.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

/// `metav1.ListMeta`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: String,
}

/// Lists objects in pages of `limit`, or of fewer if a page would exceed 16 MiB, and calls `each` for each page. Returns the
/// resourceVersion of the list.
///
/// `uri` makes the URI of a page from its limit and its `continue` token. `page_timeout` is for one page.
pub async fn list_pages(
    client: &Client,
    page_timeout: Duration,
    mut limit: usize,
    uri: impl Fn(usize, &str) -> String,
    each: &mut (dyn FnMut(&[&RawValue]) -> serde_json::Result<()> + Send),
) -> kube::Result<String> {
    let mut next = String::new();
    loop {
        let Some(text) = get_text(client, &uri(limit, &next), page_timeout).await? else {
            if limit <= 1 {
                return Err(Error::Service(
                    format!("an object is larger than {MAX_RESPONSE_BYTES} bytes").into(),
                ));
            }
            limit /= 2;
            continue;
        };
        let page: Page<'_> = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        each(&page.items).map_err(Error::SerdeError)?;
        next = page.metadata.r#continue;
        if next.is_empty() {
            return Ok(page.metadata.resource_version);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use podshaper_testing::MockApiServer;

    #[tokio::test]
    async fn too_large_page_is_listed_in_smaller_pages() {
        let (client, mut server) = MockApiServer::start();
        let mut names = Vec::new();
        let mut each = |items: &[&RawValue]| {
            names.extend(items.iter().map(|item| item.get().len()));
            Ok(())
        };
        let uri = |limit: usize, next: &str| format!("/things?limit={limit}&continue={next}");
        let listing = list_pages(&client, Duration::from_mins(1), 3, uri, &mut each);
        let serve = async {
            let large = "x".repeat(MAX_RESPONSE_BYTES);
            server
                .next("/things?limit=3&continue=")
                .await
                .answer(200, &json!({"metadata": {}, "items": [large]}));
            let first = json!({"metadata": {"continue": "a"}, "items": [1]});
            server.next("/things?limit=1&continue=").await.answer(200, &first);
            let last = json!({"metadata": {"resourceVersion": "7"}, "items": [22]});
            server.next("/things?limit=1&continue=a").await.answer(200, &last);
        };
        let (version, ()) = tokio::join!(listing, serve);
        assert_eq!((version.unwrap().as_str(), &*names), ("7", &[1, 2][..]));
    }
}
