package clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.ExecutionException;

/** Runs named steps, prints one line for each, and remembers which failed. */
final class Steps {
    interface Action {
        void run() throws Exception;
    }

    private final String client;
    private final List<String> failed = new ArrayList<>();

    Steps(String client) {
        this.client = client;
    }

    boolean step(String name, Action action) {
        long started = System.nanoTime();
        try {
            action.run();
        } catch (Throwable thrown) {
            Throwable cause =
                    thrown instanceof ExecutionException && thrown.getCause() != null ? thrown.getCause() : thrown;
            failed.add(name);
            System.out.printf("FAIL %s  %s: %s%n", client, name, cause);
            // An exception inside the client (say, of a null it did not expect) needs its place.
            if (!(cause instanceof Mismatch) && cause.getStackTrace().length > 0) {
                System.out.println("     at " + cause.getStackTrace()[0]);
            }
            return false;
        }
        System.out.printf("ok   %s  %s  (%d ms)%n", client, name, (System.nanoTime() - started) / 1_000_000);
        return true;
    }

    int finish() {
        if (failed.isEmpty()) {
            System.out.println(client + ": all steps passed");
            return 0;
        }
        System.out.println(client + ": " + failed.size() + " failed: " + String.join(", ", failed));
        return 1;
    }

    static void check(boolean condition, String message) {
        if (!condition) {
            throw new Mismatch(message);
        }
    }

    static void equal(String what, Object got, Object want) {
        check(Objects.equals(got, want), what + ": got " + shown(got) + ", want " + shown(want));
    }

    private static String shown(Object value) {
        String text = String.valueOf(value);
        return text.length() <= 400 ? text : text.substring(0, 400) + "…";
    }

    /** The broker answered, but not with what was expected. */
    static final class Mismatch extends RuntimeException {
        Mismatch(String message) {
            super(message);
        }
    }
}
