import com.latchgate.v1.AdminServiceGrpc;
import com.latchgate.v1.CreateKeyRequest;
import com.latchgate.v1.Decision;
import com.latchgate.v1.DisableKeyRequest;
import com.latchgate.v1.Key;
import com.latchgate.v1.VerifyRequest;
import com.latchgate.v1.VerifyServiceGrpc;
import com.latchgate.v1.VerifyServiceGrpc.VerifyServiceBlockingStub;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * Makes an API key, asks Latchgate about it, switches it off, and asks again. Its argument is a tenant.
 *
 * <p>It takes LATCHGATE_VERIFY_ADDRESS, LATCHGATE_ADMIN_ADDRESS and LATCHGATE_ADMIN_KEY (or LATCHGATE_ADMIN_KEY_FILE)
 * from the environment, as the commands of Latchgate do.
 */
public final class Main {
  private static final int TIMEOUT_SECONDS = 10;

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    ManagedChannel verifyChannel = open("LATCHGATE_VERIFY_ADDRESS", "127.0.0.1:50051");
    ManagedChannel adminChannel = open("LATCHGATE_ADMIN_ADDRESS", "127.0.0.1:50052");
    try {
      var headers = new Metadata();
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + adminKey());
      var admin =
          AdminServiceGrpc.newBlockingStub(adminChannel)
              .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
      var verifier = VerifyServiceGrpc.newBlockingStub(verifyChannel);

      var key =
          Key.newBuilder()
              .setTenantId(arguments[0])
              .setDisplayName("made by the Java example")
              .addPermissions("orders.read");
      var created =
          admin
              .withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS)
              .createKey(CreateKeyRequest.newBuilder().setKey(key).build());
      // The key string is told this once: hand it to its holder, and keep it out of logs.
      String keyString = created.getKeyString();
      String keyId = created.getKey().getKeyId();
      System.out.println("created " + keyId);

      ask(verifier, keyString, "orders.read");
      ask(verifier, keyString, "orders.write");
      admin
          .withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS)
          .disableKey(DisableKeyRequest.newBuilder().setKeyId(keyId).setReason("example").build());
      System.out.println("disabled " + keyId);
      // That returned once no replica decides on the state before it.
      ask(verifier, keyString, "orders.read");
    } finally {
      verifyChannel.shutdownNow().awaitTermination(TIMEOUT_SECONDS, TimeUnit.SECONDS);
      adminChannel.shutdownNow().awaitTermination(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    }
  }

  /** Prints whether the key may do what needs the permission. An error means that nobody could tell: take it as a no. */
  private static void ask(VerifyServiceBlockingStub verifier, String key, String permission) {
    var answer =
        verifier
            .withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS)
            .verify(VerifyRequest.newBuilder().setKey(key).setRequiredPermissions(permission).build());
    if (answer.getDecision() == Decision.DECISION_ALLOW) {
      System.out.printf("%s: allowed, for tenant %s%n", permission, answer.getIdentity().getTenantId());
    } else {
      String reason = answer.getDenialReason().name().replaceFirst("^DENIAL_REASON_", "");
      System.out.printf("%s: denied, %s%n", permission, reason);
    }
  }

  private static ManagedChannel open(String variable, String address) {
    String target = System.getenv().getOrDefault(variable, address);
    return Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
  }

  private static String adminKey() throws Exception {
    String key = System.getenv("LATCHGATE_ADMIN_KEY");
    return key != null ? key : Files.readString(Path.of(System.getenv("LATCHGATE_ADMIN_KEY_FILE"))).strip();
  }
}
