//! One connection to one broker: requests go out as they come, answers are matched to them in order.
//!
//! A task owns the socket. Its writer takes requests from a bounded queue and remembers each that wants an
//! answer; its reader hands every answer to the oldest of those, as Kafka answers in order. Whichever of
//! the two ends first ends the connection, and every request still waiting hears why.
//!
//! Invariants: no frame larger than [`ANSWER_BYTES_MAX`] is read; after a time-out the connection is
//! closed, since all later answers would be late as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::env::{Clock, Env, Stream};
use base::error::ErrorCode;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use wire::message::{ApiVersionsRequest, ApiVersionsResponse};
use wire::{ApiKey, Reader, RequestMessage, ResponseMessage, VersionRange, request_frame};

use crate::config::{ANSWER_BYTES_MAX, ANSWER_RESERVE_BYTES, IN_FLIGHT_MAX};
use crate::{ClientConfig, ClientError, Result};

/// Bytes read from the socket at once, where more are there.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The versions this client speaks where they are fewer than the codec knows: it addresses topics by name
/// and one group at a time, and wants null to mean "all topics".
fn spoken_versions(api: ApiKey) -> VersionRange {
    let all = api.versions();
    match api {
        ApiKey::Produce | ApiKey::Fetch => VersionRange { max: 12, ..all },
        ApiKey::Metadata => VersionRange { min: 1, ..all },
        ApiKey::OffsetCommit => VersionRange { max: 9, ..all },
        ApiKey::OffsetFetch => VersionRange { max: 7, ..all },
        ApiKey::FindCoordinator => VersionRange { max: 3, ..all },
        ApiKey::DeleteTopics => VersionRange { max: 5, ..all },
        ApiKey::LeaveGroup => VersionRange { max: 2, ..all },
        _ => all,
    }
}

/// A connection whose versions are negotiated. All methods may be called from many tasks.
pub struct Connection {
    address: Arc<str>,
    client_id: String,
    clock: Arc<dyn Clock>,
    request_timeout: Duration,
    requests: mpsc::Sender<Outgoing>,
    next_correlation_id: AtomicI32,
    broker_versions: OnceLock<HashMap<ApiKey, VersionRange>>,
    ended: Arc<OnceLock<Arc<str>>>,
    task: AbortHandle,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

struct Outgoing {
    frame: Bytes,
    waiting: Option<Waiting>,
}

struct Waiting {
    correlation_id: i32,
    answer: oneshot::Sender<Bytes>,
}

/// The body of an answer, still as bytes.
#[derive(Clone, Debug)]
pub struct Answer {
    address: Arc<str>,
    what: &'static str,
    version: i16,
    frame: Bytes,
}

impl Answer {
    /// Reads the answer; the message borrows from it, record batches share its bytes.
    pub fn read<'r, M: ResponseMessage<'r>>(&'r self) -> Result<M> {
        let mut reader = Reader::from_bytes(&self.frame);
        let header_version = M::API_KEY.response_header_version(self.version);
        let message = wire::message::ResponseHeader::decode(&mut reader, header_version)
            .and_then(|_| M::decode(&mut reader, self.version));
        message.map_err(|source| ClientError::Malformed {
            address: self.address.clone(),
            what: self.what,
            source,
        })
    }

    /// The version the request was sent in.
    pub fn version(&self) -> i16 {
        self.version
    }
}

/// A request that is on its way.
#[derive(Debug)]
pub struct PendingAnswer {
    connection: Arc<Connection>,
    what: &'static str,
    version: i16,
    deadline: Duration,
    timeout: Duration,
    answer: oneshot::Receiver<Bytes>,
}

impl PendingAnswer {
    /// Waits for the answer, until the request's time is over.
    pub async fn wait(self) -> Result<Answer> {
        let PendingAnswer { connection, what, version, deadline, timeout, answer } = self;
        let address = connection.address.clone();
        tokio::select! {
            biased;
            frame = answer => match frame {
                Ok(frame) => Ok(Answer { address, what, version, frame }),
                Err(_) => Err(connection.ended_error()),
            },
            () = connection.clock.sleep_until(deadline) => {
                connection.end("an answer came too late");
                Err(ClientError::Timeout { address, what, after: timeout })
            }
        }
    }
}

impl Connection {
    /// Connects and asks which versions the broker speaks.
    pub async fn open(env: &Env, config: &ClientConfig, address: &str) -> Result<Arc<Connection>> {
        let name: Arc<str> = address.into();
        let timeout = config.connect_timeout;
        let stream = tokio::select! {
            stream = env.network.connect(address) => stream,
            () = env.clock.sleep(timeout) => {
                return Err(ClientError::Timeout { address: name, what: "a connection attempt", after: timeout });
            }
        };
        let stream = stream
            .map_err(|source| ClientError::Connect { address: name.clone(), source: Arc::new(source) })?;
        let (requests, queue) = mpsc::channel(IN_FLIGHT_MAX);
        let ended = Arc::new(OnceLock::new());
        let task = tokio::spawn(run(stream, queue, ended.clone())).abort_handle();
        let connection = Arc::new(Connection {
            address: name,
            client_id: config.client_id.clone(),
            clock: env.clock.clone(),
            request_timeout: config.request_timeout,
            requests,
            next_correlation_id: AtomicI32::new(0),
            broker_versions: OnceLock::new(),
            ended,
            task,
        });
        let versions = connection.ask_versions().await?;
        let _ = connection.broker_versions.set(versions);
        Ok(connection)
    }

    /// Host and port.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether the connection is of no use any more.
    pub fn is_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// The version a request would be sent in: the newest that client and broker both speak.
    pub fn version_of(&self, api: ApiKey) -> Result<i16> {
        let ours = spoken_versions(api);
        let theirs = self.broker_versions.get().and_then(|versions| versions.get(&api)).copied();
        let newest = theirs.map(|theirs| (ours.max.min(theirs.max), ours.min.max(theirs.min)));
        match newest {
            Some((newest, oldest)) if newest >= oldest => Ok(newest),
            _ => Err(ClientError::UnsupportedApi { address: self.address.clone(), api, ours, theirs }),
        }
    }

    /// What the broker says it speaks, by API; what the codec does not know is left out.
    pub fn broker_versions(&self) -> Vec<(ApiKey, VersionRange)> {
        let versions = self.broker_versions.get().into_iter().flatten();
        let mut versions: Vec<_> = versions.map(|(api, range)| (*api, *range)).collect();
        versions.sort_by_key(|(api, _)| *api);
        versions
    }

    /// Sends a request and waits for its answer.
    pub async fn call<'a, R: RequestMessage<'a>>(self: &Arc<Self>, request: &R) -> Result<Answer> {
        self.start(request, Duration::ZERO).await?.wait().await
    }

    /// Sends a request; returns once it is queued, so that calls in a row keep their order.
    /// `broker_wait` is how long the request allows the broker to wait before it answers.
    pub async fn start<'a, R: RequestMessage<'a>>(
        self: &Arc<Self>,
        request: &R,
        broker_wait: Duration,
    ) -> Result<PendingAnswer> {
        self.start_version(request, self.version_of(R::API_KEY)?, broker_wait).await
    }

    /// Sends a request that has no answer (Produce with acks=0); returns once it is queued.
    pub async fn send<'a, R: RequestMessage<'a>>(&self, request: &R) -> Result<()> {
        let version = self.version_of(R::API_KEY)?;
        let frame = request_frame(self.correlation_id(), Some(&self.client_id), version, request)?;
        self.queue(Outgoing { frame, waiting: None }).await
    }

    /// Waits until the broker has read every request sent so far, of which some may have no answer.
    pub(crate) async fn round_trip(self: &Arc<Self>) -> Result<()> {
        self.ask_versions().await.map(drop)
    }

    async fn start_version<'a, R: RequestMessage<'a>>(
        self: &Arc<Self>,
        request: &R,
        version: i16,
        broker_wait: Duration,
    ) -> Result<PendingAnswer> {
        let correlation_id = self.correlation_id();
        let frame = request_frame(correlation_id, Some(&self.client_id), version, request)?;
        let (sender, answer) = oneshot::channel();
        let waiting = Some(Waiting { correlation_id, answer: sender });
        self.queue(Outgoing { frame, waiting }).await?;
        let timeout = self.request_timeout + broker_wait;
        let what = R::API_KEY.name();
        let deadline = self.clock.now() + timeout;
        Ok(PendingAnswer { connection: self.clone(), what, version, deadline, timeout, answer })
    }

    fn correlation_id(&self) -> i32 {
        self.next_correlation_id.fetch_add(1, Ordering::Relaxed)
    }

    async fn queue(&self, outgoing: Outgoing) -> Result<()> {
        tokio::select! {
            biased;
            queued = self.requests.send(outgoing) => queued.map_err(|_| self.ended_error()),
            () = self.clock.sleep(self.request_timeout) => {
                self.end("the broker takes no requests");
                Err(self.ended_error())
            }
        }
    }

    /// The versions the broker speaks. A broker that does not know our version of the question answers in
    /// version 0 and says what it knows (KIP-511).
    async fn ask_versions(self: &Arc<Self>) -> Result<HashMap<ApiKey, VersionRange>> {
        let request = ApiVersionsRequest {
            client_software_name: "vltava".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut version = ApiKey::ApiVersions.versions().max;
        let mut answer = self.start_version(&request, version, Duration::ZERO).await?.wait().await?;
        if answer.frame.get(4..6) == Some(&ErrorCode::UnsupportedVersion.code().to_be_bytes()) {
            answer.version = 0;
            let refusal: ApiVersionsResponse = answer.read()?;
            let ours = ApiKey::ApiVersions.versions();
            let known = refusal.api_keys.iter().find(|row| row.api_key == ApiKey::ApiVersions.code());
            version = known.map_or(0, |row| row.max_version.clamp(ours.min, ours.max));
            answer = self.start_version(&request, version, Duration::ZERO).await?.wait().await?;
        }
        let response: ApiVersionsResponse = answer.read()?;
        ClientError::check(response.error_code, None, || format!("broker at {}", self.address))?;
        let row = |row: &wire::message::ApiVersion| {
            let range = VersionRange { min: row.min_version, max: row.max_version };
            ApiKey::from_code(row.api_key).map(|api| (api, range))
        };
        Ok(response.api_keys.iter().filter_map(row).collect())
    }

    fn end(&self, reason: &str) {
        let _ = self.ended.set(reason.into());
        self.task.abort();
    }

    fn ended_error(&self) -> ClientError {
        let reason = self.ended.get().cloned().unwrap_or_else(|| "it was given up".into());
        ClientError::Closed { address: self.address.clone(), reason }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries requests and answers until one direction ends. The reason is set before any waiting request is
/// dropped, so that whoever waits finds it.
async fn run(stream: Box<dyn Stream>, mut queue: mpsc::Receiver<Outgoing>, ended: Arc<OnceLock<Arc<str>>>) {
    let (read, write) = tokio::io::split(stream);
    let (sent, mut waiting) = mpsc::channel(IN_FLIGHT_MAX);
    let reason = tokio::select! {
        reason = read_answers(read, &mut waiting) => reason,
        reason = write_requests(write, &mut queue, sent) => reason,
    };
    let _ = ended.set(reason.into());
}

async fn write_requests(
    mut socket: impl AsyncWrite + Unpin,
    queue: &mut mpsc::Receiver<Outgoing>,
    sent: mpsc::Sender<Waiting>,
) -> String {
    while let Some(Outgoing { frame, waiting }) = queue.recv().await {
        if let Some(waiting) = waiting
            && sent.send(waiting).await.is_err()
        {
            break;
        }
        if let Err(error) = socket.write_all(&frame).await {
            return error.to_string();
        }
        if let Err(error) = socket.flush().await {
            return error.to_string();
        }
    }
    "it is not needed any more".to_owned()
}

async fn read_answers(socket: impl AsyncRead + Unpin, waiting: &mut mpsc::Receiver<Waiting>) -> String {
    let mut socket = BufReader::with_capacity(READ_BUFFER_BYTES, socket);
    loop {
        let frame = match read_frame(&mut socket).await {
            Ok(frame) => frame,
            Err(reason) => return reason,
        };
        let Ok(Waiting { correlation_id, answer }) = waiting.try_recv() else {
            return "the broker sent an answer to no question".to_owned();
        };
        let found = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        if found != Some(correlation_id) {
            return format!("answer {correlation_id} was due, the broker sent {found:?}");
        }
        // Whoever asked may have gone away.
        let _ = answer.send(frame);
    }
}

async fn read_frame(socket: &mut (impl AsyncRead + Unpin)) -> std::result::Result<Bytes, String> {
    let size = match socket.read_i32().await {
        Ok(size) => size,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err("the broker closed it".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let size = usize::try_from(size).ok().filter(|size| (4..=ANSWER_BYTES_MAX).contains(size));
    let Some(size) = size else {
        return Err("it sent something that is not Kafka's protocol".to_owned());
    };
    let mut frame = BytesMut::with_capacity(size.min(ANSWER_RESERVE_BYTES));
    let mut body = socket.take(size as u64);
    while frame.len() < size {
        match body.read_buf(&mut frame).await {
            Ok(0) => return Err("the broker closed it in the middle of an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(frame.freeze())
}
