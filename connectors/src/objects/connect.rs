//! The client of S3: who asks, where, and for how long.

use std::{sync::Arc, time::Duration};

use dataflows::port::BoxError;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
};

/// Variables with this prefix are heeded.
const PREFIX: &str = "AWS_";

/// What nobody may set otherwise, or an error could take longer than callers reckon with. With the tries below: 26 s at most.
const TIMES: [(ClientConfigKey, &str); 3] = [
    // Connections that idle longer are found dead by the next request.
    (ClientConfigKey::PoolIdleTimeout, "3 seconds"),
    (ClientConfigKey::ConnectTimeout, "5 seconds"),
    // From the first byte of a request to the last of its answer; neither is longer than a piece.
    (ClientConfigKey::Timeout, "20 seconds"),
];

/// Tries after the first, and how long since the first one may still begin.
const RETRIES: (usize, Duration) = (3, Duration::from_secs(5));

/// Between two tries: at first, and at most.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

type Store = Arc<dyn ObjectStore>;

/// A client that tries again, and one that does not: its answer is that to the only request it made.
pub(super) fn s3(
    bucket: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(Store, Store), BoxError> {
    let builder = configured(variables).with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    assert_scheme_is_allowed(&builder)?;
    let patient = builder.clone().with_retry(retry(RETRIES.0)).build()?;
    let once = builder
        .with_credentials(Arc::clone(patient.credentials()))
        // A request on a connection that is dead already can't be told from one that was done and not answered.
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::PoolMaxIdlePerHost), "0")
        .with_retry(retry(0))
        .build()?;
    Ok((Arc::new(patient), Arc::new(once)))
}

fn configured(variables: impl IntoIterator<Item = (String, String)>) -> AmazonS3Builder {
    let ours = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
    // Others of that name belong to other programs.
    let known = ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    let builder = known.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value));
    TIMES.iter().fold(builder, |builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(*key), *value))
}

/// Told before the first request, which would be tried again and again.
fn assert_scheme_is_allowed(builder: &AmazonS3Builder) -> Result<(), BoxError> {
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    let is_open = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let may_be = value(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)).is_some_and(|allowed| allowed == "true");
    if is_open && !may_be {
        return Err("AWS_ENDPOINT_URL is not encrypted; that is allowed by AWS_ALLOW_HTTP=true".into());
    }
    Ok(())
}

fn retry(max_retries: usize) -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: RETRY_WAIT.0, max_backoff: RETRY_WAIT.1, base: 2.0 };
    RetryConfig { backoff, max_retries, retry_timeout: RETRIES.1 }
}
